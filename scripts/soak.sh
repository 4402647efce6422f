#!/usr/bin/env bash
# A hostile peer, stops, alarms, the quick benches, and the soak's short form where panics abort: programs that
# watch themselves. The soak's other short form is in workspace.sh.
#
#   scripts/soak.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

build_optimised
for program in stops alarms "hostile 1000"; do
    # shellcheck disable=SC2086 # a program and its argument
    step timeout 400 "$built/release/"$program
done
step timeout 600 "$built/release/callbridge-benches" --quick --only p1,p5
# Where a panic ends the process; a build of its own, since every crate is built differently.
step timeout 400 env CARGO_PROFILE_DEV_PANIC=abort CARGO_TARGET_DIR=target/abort \
    cargo run --quiet -p callbridge-soak -- --seconds 5
