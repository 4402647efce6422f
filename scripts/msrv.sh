#!/usr/bin/env bash
# Compiles the crate with the oldest Rust it promises, or runs its tests with it.
#
#   scripts/msrv.sh [check | test]
#
# The compiler is rustup's, if that has it; else Debian's packages of it, unpacked under target/.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
export CARGO_TARGET_DIR=target/msrv/build

unpack_debian() {
    local root=$PWD/target/msrv/root package
    if [ ! -x "$root/usr/bin/rustc" ]; then
        # An old list names no old version.
        [ -n "$(available rustc-web)" ] || apt-get update -qq
        mkdir -p target/msrv/debs
        (cd target/msrv/debs && apt-get download -qq "rustc-web=$(available rustc-web)" \
            "libstd-rust-web-dev=$(available libstd-rust-web-dev)" "libstd-rust-web-$version" libllvm19)
        for package in target/msrv/debs/*.deb; do dpkg -x "$package" "$root"; done
    fi
    export RUSTC=$root/usr/bin/rustc RUSTDOC=$root/usr/bin/rustdoc
    export LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu
}

# The version of a package of Debian's that has this Rust.
available() {
    apt-cache madison "$1" | awk -v rust="$version." '{ if (index($3, rust) == 1) { print $3; exit } }'
}

if rustup toolchain list 2>/dev/null | grep -q "^$version"; then
    export RUSTUP_TOOLCHAIN=$version
else
    unpack_debian
fi

"${RUSTC:-rustc}" --version
case ${1:-check} in
    check) cargo check --quiet -p callbridge --all-features --lib --tests --examples ;;
    test)
        cargo build --quiet -p callbridge --all-features --example echo # a test runs the program
        cargo test --quiet -p callbridge --all-features --lib --tests
        ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
