#!/usr/bin/env bash
# Compares our scores with those of PyTorch, transformers and peft. They are
# several gigabytes, so continuous integration never runs this: it compares with
# the golden fixtures that --make leaves in node/train/tests/fixtures/peft.
#
#   scripts/check-torch.sh           compute the fixtures' scores again, compare
#   scripts/check-torch.sh --make [NAME...]
#       write the fixtures anew, or only those named (base: the shipped base's scores)
#   scripts/check-torch.sh CHECKPOINT ROWS SCORES
#       score ROWS (jsonl of prompt and completion) under the folder CHECKPOINT
#       (a peft adapter, or the model.safetensors of a full fine-tuning) on
#       testnet/assets/base, and compare with SCORES, the result.json that
#       `tiltyard job eval` left for the same rows
#   scripts/check-torch.sh --base ROWS SCORES
#       the same for the untouched base
#   scripts/check-torch.sh --merged CHECKPOINT FOLDER ROWS
#       compare FOLDER, written by `tiltyard model merge`, with the adapter on its base
#
# BASE=DIR names another base model.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
usage() {
    sed -n '2,/^set /p' "$0" | sed '/^set /d; s/^# \{0,1\}//' >&2
    exit 2
}
base="${BASE:-$root/testnet/assets/base}"
fixtures="$root/node/train/tests/fixtures/peft"
case "$#:${1:-}" in
    0:) run=(fixtures "$fixtures" "$base") ;;
    *:--make) run=(make "$fixtures" "$base" "$root/testnet/assets/data" "${@:2}") ;;
    3:--base) run=(base "$base" "$2" "$3") ;;
    4:--merged) run=(merged "$base" "$2" "$3" "$4") ;;
    3:*) run=(checkpoint "$base" "$1" "$2" "$3") ;;
    *) usage ;;
esac
. "$root/scripts/assets/packages.sh"
python=$(python_with "${XDG_CACHE_HOME:-$HOME/.cache}/tiltyard/torch" \
    torch==2.15.0 transformers==5.24.0 peft==0.21.2 safetensors==0.8.0 tokenizers==0.23.3)
exec "$python" -W ignore::FutureWarning "$root/scripts/assets/torch_check.py" "${run[@]}"
