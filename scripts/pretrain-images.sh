#!/usr/bin/env bash
# Makes the image model that ships with the project, testnet/assets/base-digits: the
# digits 0 to 8 of scikit-learn's wheel, our own trainer, two minutes of one core.
# Everything but the result stays outside the tree. Equal rows and settings give equal
# weights on one processor type, at any number of workers.
#
# Needs pip, python3, cargo.
set -euo pipefail
cd "$(dirname "$0")/.."
work="${XDG_CACHE_HOME:-$HOME/.cache}/tiltyard/assets"
. scripts/assets/packages.sh
. scripts/assets/digits.sh

made="$work/base-digits"
mkdir -p "$made"
python=$(python_with "$work/python" blake3==1.0.11)
"$python" scripts/assets/graded.py "$work/unpacked" "$work/graded" "$work/digits-rest"
cargo run --release --quiet -p tiltyard-train --example pretrain_images -- \
    --rows "$work/digits-rest/train.jsonl" --held-out "$work/digits-rest/eval.jsonl" --out "$made" \
    --steps 3000 --lr 0.002 --seed 1 --workers 2 | tee "$made/pretrain.log"

base=testnet/assets/base-digits
mkdir -p "$base"
cp "$made"/{config.json,model.safetensors} "$base/"
"$python" scripts/assets/blake3sums.py "$base" model.safetensors config.json
echo "installed in $base; now run scripts/make-assets.sh"
