#!/usr/bin/env bash
# Runs the tests of the crate, all features, under a sanitizer, with a standard library that is watched too.
#
#   scripts/races.sh thread            data races
#   scripts/races.sh address           memory that isn't there any more, and leaks
#   scripts/races.sh KIND TEST...      only these test programs, such as `channel`; `lib` is the unit tests
#
# Prints each program's result and ends with the number of reports; they are in target/KIND/reports.
# scripts/races.supp has what was looked at and isn't a race.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

kind=${1:-thread}
[ "$kind" = thread ] || [ "$kind" = address ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
[ $# -eq 0 ] || shift

target=x86_64-unknown-linux-gnu
use_std_sources
flags=(-Zsanitizer="$kind")
if [ -n "${RUSTC:-}" ]; then
    # Debian's compiler comes without the sanitizers' own library; rustup's has it, of the same LLVM, and the
    # linker that it needs.
    install_debian llvm
    library=$(env -u RUSTC rustc --print sysroot)/lib/rustlib/$target
    runtime=$(echo "$library"/lib/librustc-*_rt."${kind:0:1}"san.a)
    # shellcheck disable=SC2054 # commas for the linker
    flags+=(-Zexternal-clangrt "-Clink-arg=-Wl,--whole-archive,$runtime,--no-whole-archive"
        "-Clink-arg=-B$library/bin/gcc-ld" -Clink-arg=-fuse-ld=lld -Clink-arg=-Wl,--export-dynamic
        -Clink-arg=-lm -Clink-arg=-lpthread -Clink-arg=-ldl -Clink-arg=-lrt -Clink-arg=-lresolv -Clink-arg=-lc)
fi
export RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=$PWD/target/$kind CARGO_PROFILE_DEV_DEBUG=line-tables-only
reports=$PWD/target/$kind/reports
mkdir -p "$reports" && rm -f "$reports"/*
common="log_path=$reports/report:exitcode=66"
export TSAN_OPTIONS="$common:suppressions=$PWD/scripts/races.supp:history_size=4:second_deadlock_stack=1"
export ASAN_OPTIONS="$common:detect_leaks=1"

which=(--lib --tests)
[ $# -eq 0 ] || which=()
for name in "$@"; do
    if [ "$name" = lib ]; then which+=(--lib); else which+=(--test "$name"); fi
done
settings=(-p callbridge --all-features -Zbuild-std --target "$target")
cargo build --quiet "${settings[@]}" --example echo # a test runs the program
log=target/$kind/log code=0
timeout 3000 cargo test "${settings[@]}" --no-fail-fast "${which[@]}" >"$log" 2>&1 || code=$?
grep -E '^test .* FAILED$|^test result|Running' "$log" || tail -n 30 "$log"
echo "$(cat "$reports"/* 2>/dev/null | grep -c 'WARNING: ThreadSanitizer\|ERROR: AddressSanitizer\|ERROR: LeakSanitizer') reports"
exit "$code"
