#!/usr/bin/env bash
# The model checks: protocols in every order (loom), compositions in orders drawn at random (shuttle).
#
#   scripts/models.sh
#   CALLBRIDGE_SHUTTLE_SCHEDULES=100000 scripts/models.sh     the long form
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

checked_by() {
    RUSTFLAGS="--cfg callbridge_$1" LOOM_MAX_PREEMPTIONS=2 CARGO_TARGET_DIR=target/$1 \
        timeout 900 cargo test --quiet --release --lib --features ffi
}
step checked_by loom
step checked_by shuttle
