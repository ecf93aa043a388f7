#!/usr/bin/env bash
# Runs the coverage-guided fuzz targets of testnet/fuzz. Needs a C++ compiler (libFuzzer is compiled from its sources) and
# nothing but the stable toolchain: the flags below instrument the code for coverage, as cargo-fuzz would.
#
#   scripts/fuzz.sh                    each target for 60 seconds
#   scripts/fuzz.sh TARGET [SECONDS]   one target
#   scripts/fuzz.sh --seconds N        each target for N seconds
#   scripts/fuzz.sh --runs N           each target N inputs, from a fixed seed (what CI runs)
#   scripts/fuzz.sh --list             the targets
#
# FEATURES=train adds the files that the training crate opens (candle takes minutes to instrument). Findings are left in
# target/fuzz/findings; `TILTYARD_FUZZ=TARGET target/fuzz/…/tiltyard-fuzz FILE` plays one again.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,/^set /p' "$0" | sed '/^set /d; s/^# \{0,1\}//' >&2; exit 2; }
host=$(rustc -vV | sed -n 's/^host: //p')
# The flags reach only code for --target: build scripts and macros stay as they are.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
export CARGO_INCREMENTAL=0
# A crate of ours that names a new dependency leaves the lock file here behind: `cargo metadata` there brings it up to date.
cargo build --locked --manifest-path testnet/fuzz/Cargo.toml --release --quiet --target "$host" \
    --target-dir target/fuzz ${FEATURES:+--features "$FEATURES"}
program="target/fuzz/$host/release/tiltyard-fuzz"
targets() { TILTYARD_FUZZ='' "$program" || true; }

runs=''
seconds=60
case "${1:-}" in
    '') mapfile -t chosen < <(targets) ;;
    --list) targets; exit 0 ;;
    --runs) runs=${2:?a number}; mapfile -t chosen < <(targets) ;;
    --seconds) seconds=${2:?a number}; mapfile -t chosen < <(targets) ;;
    -*) usage ;;
    *) chosen=("$1"); seconds=${2:-60} ;;
esac
[ "${#chosen[@]}" -gt 0 ] || { printf 'fuzz: no targets\n' >&2; exit 1; }

findings=target/fuzz/findings
mkdir -p "$findings"
for target in "${chosen[@]}"; do
    found=$(mktemp -d)
    seeds=$(mktemp -d)
    kept="testnet/fuzz/corpus/$target"
    mkdir -p "$kept"
    if [ -n "$runs" ]; then limits=(-runs="$runs" -seed=1); else limits=(-max_total_time="$seconds"); fi
    if ! TILTYARD_FUZZ="$target" TILTYARD_FUZZ_SEEDS="$seeds" "$program" "${limits[@]}" \
        -max_len=16384 -timeout=30 -rss_limit_mb=1024 -print_final_stats=1 -verbosity=1 \
        -artifact_prefix="$findings/$target-" "$found" "$seeds" "$kept" >"$found.log" 2>&1; then
        cat "$found.log" >&2
        printf 'fuzz: %s failed; the input is in %s\n' "$target" "$findings" >&2
        exit 1
    fi
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$found.log")
    coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$found.log" | tail -1)
    printf 'fuzz: %-18s %9s inputs, %6s edges, nothing found\n' "$target" "$executed" "${coverage:-0}"
    if [ -n "${KEEP:-}" ]; then mkdir -p "$KEEP/$target"; cp -r "$found/." "$KEEP/$target/"; fi
    rm -rf "$found" "$found.log" "$seeds"
done
