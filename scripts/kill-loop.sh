#!/usr/bin/env bash
# Kills a real node at random moments and checks after each restart that nothing acknowledged is lost.
# usage: scripts/kill-loop.sh [ROUNDS]      1,000 rounds unless given
set -euo pipefail
cd "$(dirname "$0")/.."
TILTYARD_KILL_ROUNDS=${1:-1000} cargo test --locked --release -p tiltyard --test it -- \
    kill::nothing_that_was_in_a_block --nocapture
