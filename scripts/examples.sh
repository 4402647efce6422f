#!/usr/bin/env bash
# Runs every example of the crate as the README says, and the programs that are shown optimised.
#
#   scripts/examples.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

step timeout 600 cargo run --quiet --release --example echo
step cargo build --quiet --release --examples
for example in wrap_listener frame_stream poll_loop request_reply overflow_policies \
    thread_runner to_thread fifty_threads; do
    step timeout 120 "$built/release/examples/$example"
done

build_optimised
step timeout 240 "$built/release/callbridge-c-listener" --smoke
step cargo test --quiet --release "${optimised[@]}" --test nasty_modes
step timeout 240 "$built/release/callbridge-web-service" --smoke
