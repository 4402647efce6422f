#!/usr/bin/env bash
# The relay with a real nats-server: its smoke run, and the short forms of what it shows. Its tests are in
# workspace.sh.
#
#   scripts/relay.sh          the short forms
#   scripts/relay.sh --long   what relay/README.md quotes: a million frames, and a million with kills
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

step install_debian nats-server redis-server

build_optimised
trial=$built/release/relay-trial
if [ "${1:-}" = --long ]; then
    step timeout 1800 "$trial" through
    step timeout 1800 "$trial" kills
    step timeout 600 "$trial" requests
    exit
fi

step timeout 60 "$built/release/relay" --smoke
step timeout 120 "$trial" through --frames 50000 --rounds 1
step timeout 120 "$trial" kills --frames 200000
step timeout 60 "$trial" requests --count 1000 --rounds 1
