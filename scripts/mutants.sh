#!/usr/bin/env bash
# Breaks each line of a room, one way at a time, and lists the mutants that no test of the room notices.
#
#   scripts/mutants.sh channel           hours: each mutant is a build
#   scripts/mutants.sh channel 3/20      every twentieth, from the fourth on
#
# What survives here may still be noticed by the other tests, the examples of the docs and the models:
# docs/TESTING.md says of which kinds the rest is. Works on a copy; the lists are in target/mutants.out.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

room=$1
case $room in
    bridge) tests=(bridge call_alloc debug metrics) ;;
    channel) tests=(channel channel_alloc debug metrics) ;;
    sync) tests=(future channel bridge call_alloc executor context metrics) ;;
    *) tests=("$room") ;;
esac
command -v cargo-mutants >/dev/null || step cargo install --quiet --locked cargo-mutants
# Nobody debugs a mutant, and most of the crate stays as it was.
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=1
mkdir -p target
# What the models swap in is built for them alone.
"${CARGO:-cargo}" mutants --output target --file "src/$room/**" ${2:+--shard "$2" --sharding round-robin} \
    --exclude 'src/**/loom_tests.rs' --exclude 'src/sync/model*.rs' --exclude-re 'tests::' \
    --all-features --cap-lints true --timeout 120 --build-timeout 900 \
    --cargo-arg=--lib "${tests[@]/#/--cargo-arg=--test=}"
