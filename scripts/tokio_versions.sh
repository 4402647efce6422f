#!/usr/bin/env bash
# Runs the tests with the oldest tokio that Cargo.toml allows, and with the newest there is.
#
#   scripts/tokio_versions.sh             both; the newest only if Cargo.lock has another
#   scripts/tokio_versions.sh oldest      or newest: only that
#
# Works on a copy under target/, whose Cargo.lock it changes, with build directories of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
tokios=(tokio tokio-util)

# What Cargo.toml asks of a package at least, as a whole version.
required() {
    local version
    version=$(sed -n "s/^$1 = { version = \"\([0-9.]*\)\".*/\1/p" Cargo.toml | head -n 1)
    case $version in
        *.*.*) echo "$version" ;;
        *) echo "$version.0" ;;
    esac
}

# What a lock file has of a package.
locked() {
    grep -A 1 "^name = \"$2\"$" "$1/Cargo.lock" | sed -n 's/^version = "\(.*\)"/\1/p'
}

copy() {
    tree=$root/target/tokio/$1/tree
    export CARGO_TARGET_DIR=$root/target/tokio/$1/build
    rm -rf "$tree" && mkdir -p "$tree"
    git ls-files -z --cached --others --exclude-standard | xargs -0 tar -c | tar -x -C "$tree"
}

in_tree() {
    (cd "$tree" && "${CARGO:-cargo}" "$@")
}

tests() {
    for package in "${tokios[@]}"; do echo "$package $(locked "$tree" "$package")"; done
    # A test of the echo example runs the program.
    in_tree build --quiet --all-features --example echo
    in_tree test --quiet --all-features --lib --tests
    # Says what it left out.
    in_tree test --quiet --all-features --test context -- --nocapture |
        { grep -o 'skipped: .*' || true; } | sort -u
}

oldest() {
    copy oldest
    for package in "${tokios[@]}"; do
        in_tree update --quiet -p "$package" --precise "$(required "$package")"
    done
    tests
}

newest() {
    copy newest
    in_tree update --quiet "${tokios[@]/#/-p}"
    local package same=yes
    for package in "${tokios[@]}"; do
        [ "$(locked "$tree" "$package")" = "$(locked "$root" "$package")" ] || same=no
    done
    if [ "$same" = yes ] && [ "${1:-}" != always ]; then
        echo "Cargo.lock has the newest: $(locked "$root" tokio), tested by all else"
    else
        tests
    fi
}

case ${1:-both} in
    oldest) oldest ;;
    newest) newest always ;;
    # Not joined by &&, which would let failures inside the first go unseen.
    both)
        oldest
        newest
        ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
