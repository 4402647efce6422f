#!/usr/bin/env bash
# The soak's short form, a hostile peer, stops, and the quick benches: programs that watch themselves.
#
#   scripts/soak.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

step timeout 400 cargo run --quiet -p callbridge-soak -- --seconds 15
step timeout 400 cargo run --quiet --release -p callbridge-soak --bin stops
step timeout 400 cargo run --quiet --release -p callbridge-soak --bin alarms
step timeout 400 cargo run --quiet --release -p callbridge-soak --bin hostile -- 1000
# Where a panic ends the process; a build of its own, since every crate is built differently.
step timeout 400 env CARGO_PROFILE_DEV_PANIC=abort CARGO_TARGET_DIR=target/abort \
    cargo run --quiet -p callbridge-soak -- --seconds 5
step timeout 600 cargo run --quiet --release -p callbridge-benches -- --quick --only p1,p5
