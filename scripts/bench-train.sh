#!/usr/bin/env bash
# Measures our training engine beside PyTorch + PEFT: the same rows, batches and
# initial adapter, taking turns in one run. Prints a table and keeps a file a row.
#
#   scripts/bench-train.sh             every row, three turns each (about 40 minutes)
#   scripts/bench-train.sh --quick     every row, one turn, few steps (about 10 minutes)
#   scripts/bench-train.sh --turns N   N turns each
#   scripts/bench-train.sh --rows A,B  only these rows, such as lora-1,generate-16; the
#                                      others keep what was measured before
#   scripts/bench-train.sh --render    measures nothing: writes what was measured into
#                                      testnet/BENCH.md
#
# BASE=DIR names the base model; without it a model of random weights in the shape
# of SmolLM2-135M is made (speed does not depend on the weights).
# BENCH=FILE is a built example to use instead of building it.
# PYTHON=FILE is an interpreter that has torch, transformers and peft; without it
# they (several gigabytes) come once into the user's cache.
# OUT=DIR keeps the files (default target/bench-train).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
turns= quick=no rows= render=no
while [ $# -gt 0 ]; do
    case "$1" in
        --quick) quick=yes ;;
        --turns) turns=${2:?--turns needs a number}; shift ;;
        --rows) rows=${2:?--rows needs names}; shift ;;
        --render) render=yes ;;
        *) sed -n '2,/^set /p' "$0" | sed '/^set /d; s/^# \{0,1\}//' >&2; exit 2 ;;
    esac
    shift
done
if [ -z "$turns" ]; then
    [ "$quick" = yes ] && turns=1 || turns=3
fi
out=${OUT:-$root/target/bench-train}
python=${PYTHON:-}
if [ -z "$python" ]; then
    . "$root/scripts/assets/packages.sh"
    python=$(python_with "${XDG_CACHE_HOME:-$HOME/.cache}/tiltyard/torch" \
        torch==2.15.0 transformers==5.24.0 peft==0.21.2 safetensors==0.8.0 tokenizers==0.23.3 numpy)
fi
program="$root/scripts/assets/bench_train.py"
if [ "$render" = yes ]; then
    exec "$python" -W ignore "$program" render "$out" "$root/testnet/BENCH.md"
fi
bench=${BENCH:-$root/target/release/examples/bench}
if [ -z "${BENCH:-}" ]; then
    cargo build --quiet --release --manifest-path "$root/Cargo.toml" -p tiltyard-train --example bench
fi
mkdir -p "$out"
[ -f "$out/big/rows.json" ] && [ -z "${BASE:-}" ] || "$bench" prepare "$out/big" ${BASE:+"$BASE"}
"$bench" prepare "$out/small" "$root/testnet/assets/base"
exec "$python" -W ignore "$program" "$bench" "$out" "$turns" "$quick" "$rows"
