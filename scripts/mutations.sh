#!/usr/bin/env bash
# Breaks one protocol at a time and demands that its model check fails.
#
#   scripts/mutations.sh            all of tests/mutations
#   scripts/mutations.sh NAME...    only these
#
# Works on a copy under target/, with build directories of its own: cargo would take a mutant built in
# those of the model checks for the crate, since its sources are newer.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
tree=$root/target/mutations/tree
export LOOM_MAX_PREEMPTIONS=2

if [ $# -eq 0 ]; then
    for patch in tests/mutations/*.patch; do set -- "$@" "$(basename "$patch" .patch)"; done
fi

survived=()
for name in "$@"; do
    patch=$root/tests/mutations/$name.patch
    model=$(sed -n 's/^model: //p' "$patch")
    case $model in
        shuttle_tests::*) checker=shuttle ;;
        *) checker=loom ;;
    esac
    export RUSTFLAGS="--cfg callbridge_$checker" CARGO_TARGET_DIR=$root/target/mutations/$checker
    rm -rf "$tree" && mkdir -p "$tree"
    git ls-files -z | xargs -0 tar -c | tar -x -C "$tree"
    # What is compiled is judged by its time, and copies keep theirs.
    patch --quiet --directory "$tree" -p1 <"$patch"
    find "$tree/src" -name '*.rs' -exec touch {} +
    (cd "$tree" && "${CARGO:-cargo}" test --quiet --release --lib --features ffi --no-run)
    log=$root/target/mutations/$name.log
    began=$SECONDS code=0
    (cd "$tree" && timeout 300 "${CARGO:-cargo}" test --release --lib --features ffi -- --exact "$model") >"$log" 2>&1 || code=$?
    if ! grep -q '^running 1 test' "$log"; then
        echo "$name: there is no model $model"
        exit 1
    fi
    if [ "$code" -eq 0 ] || [ "$code" -eq 124 ]; then
        survived+=("$name")
        echo "$name: SURVIVED $model (exit code $code)"
    else
        echo "$name: found by $model in $((SECONDS - began)) s"
    fi
done
echo "$(($# - ${#survived[@]})) of $# mutations found"
[ ${#survived[@]} -eq 0 ]
