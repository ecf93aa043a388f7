#!/usr/bin/env bash
# Builds Tiltyard and runs a whole market on this machine: real processes, a real model, real text.
# usage: scripts/testnet.sh [--base smollm2] [--report FILE] [--validators N] [--miners N] [--tasks N] [--seed N]
#                           [--keep DIR]
# --base smollm2 brings SmolLM2-135M-Instruct by scripts/fetch-models.sh and runs the market on it, with one task
# unless --tasks says otherwise; it takes some 10 minutes and 6 GB of memory.
# Exits 0 only when every promise held; see `--help` for all options.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
command -v cargo >/dev/null || { echo 'testnet: cargo is missing; install a Rust toolchain (1.89 or newer)' >&2; exit 3; }
target=${CARGO_TARGET_DIR:-$root/target}
cargo build --locked --release --manifest-path "$root/Cargo.toml" -p tiltyard -p tiltyard-testnet
words=()
while [ $# -gt 0 ]; do
    case "$1 ${2:-}" in
        '--base smollm2') words+=(--base "$("$root/scripts/fetch-models.sh" | tail -1)"); shift 2
                          case " $* ${words[*]} " in *' --tasks '*) ;; *) words+=(--tasks 1) ;; esac ;;
        *) words+=("$1"); shift ;;
    esac
done
exec "$target/release/tiltyard-testnet" run ${words[@]+"${words[@]}"}
