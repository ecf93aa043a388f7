#!/usr/bin/env bash
# Builds Tiltyard and runs a whole market on this machine: real processes, a real model, real text.
# usage: scripts/testnet.sh [--report FILE] [--validators N] [--miners N] [--tasks N] [--seed N] [--keep DIR]
# Exits 0 only when every promise held; see `--help` for all options.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
command -v cargo >/dev/null || { echo 'testnet: cargo is missing; install a Rust toolchain (1.89 or newer)' >&2; exit 3; }
target=${CARGO_TARGET_DIR:-$root/target}
cargo build --locked --release --manifest-path "$root/Cargo.toml" -p tiltyard -p tiltyard-testnet
exec "$target/release/tiltyard-testnet" run "$@"
