#!/usr/bin/env bash
# Compiles the crate, all features, for systems that it can't run on here.
#
#   scripts/cross.sh            every target below
#   scripts/cross.sh TARGET...  only these
#
# Their standard library is compiled from its sources, so that no toolchain has to bring it.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

targets=(
    x86_64-pc-windows-msvc aarch64-pc-windows-msvc x86_64-pc-windows-gnu
    aarch64-apple-darwin x86_64-apple-darwin aarch64-apple-ios
    x86_64-unknown-freebsd x86_64-unknown-netbsd x86_64-unknown-openbsd x86_64-unknown-illumos
    aarch64-linux-android x86_64-unknown-linux-musl armv7-unknown-linux-gnueabihf
    i686-unknown-linux-gnu riscv64gc-unknown-linux-gnu
)
[ $# -eq 0 ] || targets=("$@")

use_std_sources
export CARGO_TARGET_DIR=target/cross
failed=()
for target in "${targets[@]}"; do
    began=$SECONDS
    if RUSTFLAGS="-D warnings" cargo check --quiet -p callbridge --lib --all-features \
        -Zbuild-std=std,panic_unwind --target "$target"; then
        echo "$target: compiles ($((SECONDS - began)) s)"
    else
        failed+=("$target")
        echo "$target: FAILS"
    fi
done
echo "$((${#targets[@]} - ${#failed[@]})) of ${#targets[@]} targets compile"
[ ${#failed[@]} -eq 0 ]
