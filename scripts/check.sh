#!/usr/bin/env bash
# Runs every check that CI runs: format, floors, lints, tests, documentation.
# usage: scripts/check.sh [--fast]      --fast leaves out the second lint pass and the documentation
set -euo pipefail
cd "$(dirname "$0")/.."

fast=no
case "${1:-}" in
    '') ;;
    --fast) fast=yes ;;
    *) printf 'usage: scripts/check.sh [--fast]\n' >&2; exit 2 ;;
esac

step() { printf '\n== %s (%ss)\n' "$*" "$SECONDS"; }
trap 'code=$?; [ "$code" = 0 ] || printf "\ncheck failed after %ss\n" "$SECONDS" >&2' EXIT

step 'format'
cargo fmt --all --check
step 'fetch'
cargo fetch --locked --quiet
# The fuzz targets are a workspace of their own, with a lock file that must follow this one.
cargo fetch --locked --quiet --manifest-path testnet/fuzz/Cargo.toml
step 'floors'
./scripts/floors.sh
step 'lints'
cargo clippy --locked --workspace --all-targets -- -D warnings
if [ "$fast" = no ]; then
    step 'lints without default features'
    cargo clippy --locked --workspace --no-default-features -- -D warnings
fi
step 'tests'
cargo test --locked --workspace
if [ "$fast" = no ]; then
    step 'documentation'
    RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --quiet
fi
printf '\nall checks passed in %ss\n' "$SECONDS"
