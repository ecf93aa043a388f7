#!/usr/bin/env bash
# Checks who may import whom: each crate only floors below it, and the pure floors nothing that does I/O.
# usage: scripts/floors.sh        exits 1 and names every breach
set -euo pipefail
cd "$(dirname "$0")/.."

breaches=0
breach() { printf 'floors: %s\n' "$*" >&2; breaches=$((breaches + 1)); }

# crate | folder | our crates it may depend on
floors='
tiltyard-keys|keys|
tiltyard-proto|proto|keys
tiltyard-ledger|node/ledger|keys proto
tiltyard-consensus|node/consensus|keys proto
tiltyard-machine|node/machine|keys proto ledger consensus
tiltyard-store|node/store|keys proto ledger
tiltyard-net|node/net|keys proto
tiltyard-train|node/train|keys proto
tiltyard-light|node/light|keys proto
tiltyard|node|keys proto ledger consensus machine store net train light
'

while IFS='|' read -r crate folder allowed; do
    [ -n "$crate" ] || continue
    for found in $(cargo tree --locked --offline -p "$crate" -e normal --depth 1 --prefix none | awk '{print $1}' | grep '^tiltyard-' | sort -u); do
        [ "$found" = "$crate" ] && continue
        name=${found#tiltyard-}
        case " $allowed " in
            *" $name "*) ;;
            *) breach "$crate imports $found, which is not on a floor below it" ;;
        esac
    done
done <<<"$floors"

# F0 to F2 must not even see the heavy crates; Malachite's core lists tokio itself, so for consensus and machine our own
# manifests and sources are checked.
for crate in tiltyard-keys tiltyard-proto tiltyard-ledger; do
    for heavy in tokio libp2p sled candle-core; do
        if cargo tree --locked --offline -p "$crate" -e normal -i "$heavy" >/dev/null 2>&1; then
            breach "$crate depends on $heavy"
        fi
    done
done
for folder in node/consensus node/machine; do
    if grep -nE '^(tokio|libp2p|sled|candle)' "$folder/Cargo.toml"; then breach "$folder names a crate that does I/O"; fi
done

# What a pure source may not name. Test modules live in tests/ or in files called tests.rs.
pure='std::fs|std::net|std::thread|std::process|std::env|Instant::now|SystemTime|HashMap|HashSet|rand::|getrandom|\bf32\b|\bf64\b'
for folder in keys proto node/ledger node/consensus node/machine; do
    hits=$(grep -rnE "$pure" "$folder/src" --include='*.rs' --exclude='tests.rs' | grep -vE ':[0-9]+: *//' || true)
    [ -z "$hits" ] || { printf '%s\n' "$hits" >&2; breach "$folder/src is a pure floor"; }
    [ -f "$folder/clippy.toml" ] || breach "$folder has no clippy.toml with the bans"
done

# One second copy of a network stack or a curve would be a mistake.
if [ "$(grep -c '^name = "libp2p-swarm"$' Cargo.lock)" != 1 ]; then breach "more than one libp2p in Cargo.lock"; fi

# Unsafe code: forbidden everywhere but in one file of node/train.
unsafe_files=$(grep -rlE '\bunsafe\b *(\{|fn|impl)' --include='*.rs' keys proto node testnet | sort -u || true)
for file in $unsafe_files; do
    case "$file" in
        node/train/src/*/gemm.rs | node/train/src/gemm.rs) ;;
        *) breach "$file has unsafe code" ;;
    esac
done

if [ "$breaches" -gt 0 ]; then
    printf 'floors: %d breach(es); move the code to its floor or write down why in node/docs/adr\n' "$breaches" >&2
    exit 1
fi
printf 'floors: 10 crates, no breach\n'
