#!/usr/bin/env bash
# Runs every benchmark of the ledger, one after the other, and makes the figures of testnet/BENCH.md from the results.
# Use a machine that does nothing else; about 25 minutes with the defaults.
# usage: scripts/bench-ledger.sh [--out DIR] [--quick] [--seconds N] [--qa-seconds N] [--no-render]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=$root/target/bench seconds=60 qa_seconds=300 quick='' render=yes
while [ $# -gt 0 ]; do
    case $1 in
        --out) out=$2; shift 2 ;;
        --seconds) seconds=$2; shift 2 ;;
        --qa-seconds) qa_seconds=$2; shift 2 ;;
        --quick) quick=--quick; render=no; shift ;;
        --no-render) render=no; shift ;;
        *) echo "bench-ledger: $1 is unknown; see the usage in the first lines of the script" >&2; exit 3 ;;
    esac
done
command -v cargo >/dev/null || { echo 'bench-ledger: cargo is missing; install a Rust toolchain (1.89 or newer)' >&2; exit 3; }
cargo build --locked --release --manifest-path "$root/Cargo.toml" -p tiltyard -p tiltyard-testnet
bench="${CARGO_TARGET_DIR:-$root/target}/release/tiltyard-testnet bench"
mkdir -p "$out"
# shellcheck disable=SC2086 # words on purpose
{
    $bench heights $quick --out "$out/1-heights.json"
    $bench latency $quick --seconds "$seconds" --out "$out/2-latency.json"
    $bench transfers $quick --seconds "$seconds" --out "$out/3-transfers.json"
    $bench qa $quick --seconds "$qa_seconds" --out "$out/4-qa.json"
    if [ "$render" = yes ]; then
        $bench render "$out" --into "$root/testnet/BENCH.md" --svg "$root/testnet/load-latency.svg"
    fi
}
