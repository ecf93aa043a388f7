#!/usr/bin/env bash
# Trains with the real TRL and PEFT on the processor, as an external trainer, and
# checks that what it leaves is accepted, scores better than the base, and merges
# into a folder that transformers loads. Several gigabytes of Python packages, so
# continuous integration never runs this; it drives a fake trainer instead.
#
#   scripts/check-trl.sh       on testnet/assets; BASE=DIR names another base
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
base="${BASE:-$root/testnet/assets/base}"
. "$root/scripts/assets/packages.sh"
python=$(python_with "${XDG_CACHE_HOME:-$HOME/.cache}/tiltyard/torch" torch==2.15.0 transformers==5.24.0 \
    peft==0.21.2 safetensors==0.8.0 tokenizers==0.23.3 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0)
# A small model gains nothing by more threads, and on a busy machine they wait for each other.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
tiltyard="${TILTYARD:-$root/target/release/tiltyard}"
[ -x "$tiltyard" ] || cargo build --locked --release --manifest-path "$root/Cargo.toml" -p tiltyard
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
data="$root/testnet/assets/data/add"
"$tiltyard" train --base "$base" --train "$data/train.jsonl" --eval "$data/eval.jsonl" --out "$out/adapter" \
    --tokens "${TOKENS:-20000}" --plot "$out/curves.svg" --csv "$out/steps.csv" --json \
    --strategy "external:$python $root/scripts/external/trl_lora.py --lr 3e-3" > "$out/answer.json"
cat "$out/answer.json"
"$tiltyard" model merge "$base" "$out/adapter" "$out/merged"
BASE="$base" "$root/scripts/check-torch.sh" --merged "$out/adapter" "$out/merged" "$data/eval.jsonl"
"$python" - "$out/answer.json" <<'PY'
import json, sys
answer = json.load(open(sys.argv[1]))
before, after = answer["base_micro"], answer["checkpoint_micro"]
if not after < 0.9 * before:
    raise SystemExit(f"error: TRL took the loss from {before} to {after} micro-nats only")
print(f"TRL: base {before / 1e6:.4f}, checkpoint {after / 1e6:.4f} nats")
PY
