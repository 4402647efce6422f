#!/usr/bin/env bash
# Runs the tests of the crate, all features, for another system or processor, on an emulator where one is needed.
#
#   scripts/emulated.sh windows           under wine
#   scripts/emulated.sh aarch64           under qemu: 64-bit ARM
#   scripts/emulated.sh s390x             under qemu: big-endian
#   scripts/emulated.sh arm               under qemu: 32 bits
#   scripts/emulated.sh i686              32 bits too, without an emulator: x86-64 runs it
#   scripts/emulated.sh SYSTEM TEST...    only these test programs, such as `channel`; `lib` is the unit tests
#
# Prints which programs passed, and the failed tests. What is skipped, and why, is below and in
# docs/PLATFORMS.md.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

system=${1:?name a system}
shift
skip=()
case $system in
    windows)
        target=x86_64-pc-windows-gnu
        install_debian gcc-mingw-w64-x86-64 wine wine64
        export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=wine
        export WINEPREFIX=$PWD/target/emulated/wine WINEDEBUG=-all
        # wine shows a reset as an end, lets a read wait on though its socket is shut down, and may tell of no
        # datagram after an ICMP error; its timers are coarse: 100 000 races with one take too long.
        for test in an_error_that_the_stop_brought_about_is_no_failure \
            a_reader_whose_interrupter_ends_it_gives_no_half_frame a_peer_that_is_gone_is_counted_not_fatal \
            a_reset_connection_is_told_from_one_that_ends what_ends_a_served_connection_is_reported \
            resets_in_the_middle_of_a_frame_end_only_their_connections a_served_connection_that_breaks_is_counted \
            a_tcp_source_reads_a_device_and_fails_on_a_reset a_request_is_told_when_its_peer_is_gone \
            a_recv_that_loses_a_race_takes_nothing; do
            skip+=(--skip "$test")
        done
        ;;
    aarch64) target=aarch64-unknown-linux-gnu cross=aarch64-linux-gnu debian=arm64 ;;
    s390x) target=s390x-unknown-linux-gnu cross=s390x-linux-gnu debian=s390x ;;
    arm) target=armv7-unknown-linux-gnueabihf cross=arm-linux-gnueabihf debian=armhf ;;
    i686) target=i686-unknown-linux-gnu cross=i686-linux-gnu debian=i386 ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
use_std_sources
# A panic's trace takes seconds.
export RUST_BACKTRACE=0
export CARGO_TARGET_DIR=$PWD/target/emulated
if [ "$system" = windows ]; then
    # What Rust's random numbers want, and wine 8 lacks; it is looked for beside each program.
    mkdir -p "$CARGO_TARGET_DIR/$target/debug/"{deps,examples}
    for folder in "$CARGO_TARGET_DIR/$target/debug/"{,deps,examples}; do
        x86_64-w64-mingw32-gcc -shared -o "$folder/bcryptprimitives.dll" scripts/bcryptprimitives.c -ladvapi32
    done
else
    install_debian "gcc-$cross" "libc6-dev-$debian-cross"
    upper=$(tr 'a-z-' 'A-Z_' <<<"$target")
    export "CARGO_TARGET_${upper}_LINKER=$cross-gcc"
fi
if [ "$system" = i686 ]; then
    install_debian libc6-i386 lib32gcc-s1
elif [ "$system" != windows ]; then
    install_debian qemu-user
    # A test that starts itself again needs it too.
    export CALLBRIDGE_EMULATOR="qemu-${cross%%-*} -L /usr/$cross"
    export "CARGO_TARGET_${upper}_RUNNER=$CALLBRIDGE_EMULATOR"
    # 100 000 calls in a chain, and series of random runs, take longer than their tests allow, and what costs
    # no core costs a fifth of one. qemu 7.2 itself fails where a process that was forked off from threads
    # starts some, sets no limit to the address space, and knows no interface for multicast.
    for test in a_long_chain_of_calls_is_closed the_counters_balance_over_random_runs \
        a_source_whose_descriptor_is_always_ready_costs_no_core \
        a_new_runtime_and_bridge_work_in_a_forked_process a_new_listener_works_in_a_forked_process \
        to_thread_works_in_a_forked_process a_pool_of_the_parent_answers_in_a_forked_process \
        a_dedicated_thread_of_the_parent_answers_in_a_forked_process \
        a_failed_start_can_be_tried_again_in_a_forked_process \
        runners_and_leases_made_in_a_forked_process_work_there \
        a_connection_without_a_thread_is_refused_and_the_next_one_served \
        stopping_a_member_of_a_multicast_group_sends_the_group_nothing; do
        skip+=(--skip "$test")
    done
fi

which=(--lib --tests)
[ $# -eq 0 ] || which=()
for name in "$@"; do
    if [ "$name" = lib ]; then which+=(--lib); else which+=(--test "$name"); fi
done
settings=(-p callbridge --all-features "-Zbuild-std=std,panic_unwind,test" --target "$target")
cargo build --quiet "${settings[@]}" --example echo # a test runs the program
log=target/emulated/$system.log code=0
timeout 3000 cargo test "${settings[@]}" --no-fail-fast "${which[@]}" -- --test-threads=2 "${skip[@]}" >"$log" 2>&1 || code=$?
grep -E '^test .* FAILED$|^test result' "$log" || tail -n 30 "$log"
awk '/^test result/ { passed += $4; failed += $6; ignored += $8 }
    END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$log"
exit "$code"
