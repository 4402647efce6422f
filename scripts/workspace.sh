#!/usr/bin/env bash
# The tests of the whole workspace with all features, and its programs in their self-terminating modes: the
# libraries, brokers and servers are real.
#
#   scripts/workspace.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

# libmosquitto and its broker are a library that isn't ours; the X packages show a window without a screen.
step install_debian xvfb xauth xdotool libgl1 libgl1-mesa-dri libx11-xcb1 libxcursor1 libxi6 \
    libxkbcommon-x11-0 pkg-config libmosquitto-dev mosquitto nats-server redis-server valgrind

# One build for all, as with `optimised`.
all=(--workspace --exclude callbridge-benches --all-features)

step timeout 1800 cargo test --quiet "${all[@]}" --lib --bins --tests
step timeout 600 cargo test --quiet "${all[@]}" --doc -- ffi guide

# What C may do to its callbacks, once more where every access is checked.
nasty_modes_under_valgrind() {
    local binary
    binary=$(cargo test --no-run "${all[@]}" --test nasty_modes 2>&1 |
        sed -n 's/.*(\(.*nasty_modes-[0-9a-f]*\)).*/\1/p')
    timeout 300 valgrind -q --trace-children=yes --error-exitcode=9 "$binary" --test-threads=1
}
step nasty_modes_under_valgrind

step cargo build --quiet "${all[@]}" --bins
step timeout 120 "$built/debug/callbridge-cookbook"
for example in mosquitto notify-watch ctrl-c serial-meter watch websocket; do
    step timeout 240 "$built/debug/callbridge-$example" --smoke
done
for how in "" --blocking; do
    # shellcheck disable=SC2086 # no option is no argument
    step timeout 60 xvfb-run -a "$built/debug/callbridge-desktop" --smoke --xdotool $how
done
step timeout 400 "$built/debug/callbridge-soak" --seconds 15
