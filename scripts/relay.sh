#!/usr/bin/env bash
# The relay with a real nats-server: its tests, its smoke run, and the short forms of what it shows.
#
#   scripts/relay.sh          the short forms
#   scripts/relay.sh --long   what relay/README.md quotes: a million frames, and a million with kills
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

step install_debian nats-server redis-server

if [ "${1:-}" = --long ]; then
    step cargo build --quiet --release -p callbridge-relay
    trial=${CARGO_TARGET_DIR:-target}/release/relay-trial
    step timeout 1800 "$trial" through
    step timeout 1800 "$trial" kills
    step timeout 600 "$trial" requests
    exit
fi

step timeout 900 cargo test --quiet -p callbridge-relay --all-features
step cargo build --quiet --release -p callbridge-relay
bin=${CARGO_TARGET_DIR:-target}/release
step timeout 60 "$bin/relay" --smoke
step timeout 120 "$bin/relay-trial" through --frames 50000 --rounds 1
step timeout 120 "$bin/relay-trial" kills --frames 200000
step timeout 60 "$bin/relay-trial" requests --count 1000 --rounds 1
