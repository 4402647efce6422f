#!/usr/bin/env bash
# Compiles the crate with every set of its features, and with the oldest versions of what it needs.
#
#   scripts/features.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

every_set() {
    local features sets=("") feature set
    mapfile -t features < <(sed -n '/^\[features\]/,/^\[/s/^\([a-z]*\) = .*/\1/p' Cargo.toml | grep -v '^default$')
    for feature in "${features[@]}"; do
        for set in "${sets[@]}"; do sets+=("$set $feature"); done
    done
    for set in "${sets[@]}"; do
        echo "features:${set:- none}"
        RUSTFLAGS="-D warnings" CARGO_TARGET_DIR=target/features \
            cargo check --quiet -p callbridge --lib --no-default-features --features "$set"
    done
    echo "${#sets[@]} sets of features compile"
}

# Direct dependencies at the least that Cargo.toml asks for; in a copy, whose Cargo.lock it changes.
oldest_versions() {
    local tree=target/oldest/tree
    rm -rf $tree && mkdir -p $tree
    git ls-files -z --cached --others --exclude-standard | xargs -0 tar -c | tar -x -C $tree
    # The package alone: a workspace would raise what its other members need.
    sed -i '/^members = /d; /^exclude = /d' $tree/Cargo.toml
    cd $tree
    RUSTC_BOOTSTRAP=1 cargo update --quiet -Zdirect-minimal-versions
    CARGO_TARGET_DIR=../build cargo check --quiet --lib --all-features
}

step every_set
step oldest_versions
