#!/usr/bin/env bash
# Measures which lines the tests of the crate run, all features: a table by room, and the list of the others.
#
#   scripts/coverage.sh          runs the tests; the lines that none ran are in target/coverage/uncovered
#   scripts/coverage.sh 92       fails below 92 % of the lines
#
# Tests inside src/ and the model checks count as tests, not as lines.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

export CARGO_TARGET_DIR=$PWD/target/coverage
export RUSTFLAGS="-C instrument-coverage" LLVM_PROFILE_FILE=$CARGO_TARGET_DIR/raw/%p-%m.profraw
export CARGO_PROFILE_DEV_DEBUG=line-tables-only

# The tools must be of the compiler's LLVM: rustup's, or Debian's of the same number.
tools=$(rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/bin suffix=
if [ ! -x "$tools/llvm-cov" ]; then
    major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    install_debian "llvm-$major"
    tools=/usr/bin suffix=-$major
fi

rm -rf "$CARGO_TARGET_DIR/raw"
cargo build --quiet -p callbridge --all-features --example echo # a test runs the program
# In a child process that is killed on purpose nothing is written; that is as it should be.
cargo test --quiet -p callbridge --all-features --lib --tests >"$CARGO_TARGET_DIR/log" 2>&1 ||
    { tail -n 40 "$CARGO_TARGET_DIR/log"; exit 1; }
mapfile -t programs < <(cargo test -p callbridge --all-features --lib --tests --no-run --message-format json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
"$tools/llvm-profdata$suffix" merge -sparse "$CARGO_TARGET_DIR"/raw/*.profraw -o "$CARGO_TARGET_DIR/data"
"$tools/llvm-cov$suffix" export --format lcov --instr-profile "$CARGO_TARGET_DIR/data" \
    "${programs[@]/#/--object=}" --sources "$PWD/src" >"$CARGO_TARGET_DIR/lcov"
scripts/coverage.py "$CARGO_TARGET_DIR/lcov" "$CARGO_TARGET_DIR/uncovered" "${1:-0}"
