#!/usr/bin/env bash
# Runs every example and every program of the workspace, and the tests of those with packages of their own.
#
#   scripts/examples.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

# libmosquitto and its broker are a library that isn't ours; the X packages show a window without a screen.
step install_debian xvfb xauth xdotool libgl1 libgl1-mesa-dri libx11-xcb1 libxcursor1 libxi6 \
    libxkbcommon-x11-0 pkg-config libmosquitto-dev mosquitto valgrind

for example in wrap_listener frame_stream poll_loop request_reply overflow_policies \
    thread_runner to_thread fifty_threads; do
    step timeout 400 cargo run --quiet --release --example "$example"
done
step timeout 600 cargo run --quiet --release --example echo

step timeout 600 cargo run --quiet -p callbridge-cookbook

step cargo test --quiet -p callbridge-c-listener
step cargo test --quiet --release -p callbridge-c-listener
step timeout 240 cargo run --quiet --release -p callbridge-c-listener -- --smoke

# What C may do to its callbacks, once more where every access is checked.
nasty_modes_under_valgrind() {
    local binary
    binary=$(cargo test --no-run -p callbridge-c-listener --test nasty_modes 2>&1 |
        sed -n 's/.*(\(.*nasty_modes-[0-9a-f]*\)).*/\1/p')
    timeout 300 valgrind -q --trace-children=yes --error-exitcode=9 "$binary" --test-threads=1
}
step nasty_modes_under_valgrind

step timeout 600 cargo test --quiet -p callbridge-mosquitto
step timeout 400 cargo run --quiet -p callbridge-mosquitto -- --smoke
step timeout 600 cargo test --quiet -p callbridge-notify-watch -p callbridge-ctrl-c \
    -p callbridge-serial-meter -p callbridge-watch -p callbridge-websocket
for example in notify-watch ctrl-c serial-meter watch websocket; do
    step timeout 240 cargo run --quiet -p "callbridge-$example" -- --smoke
done

step cargo test --quiet -p callbridge-web-service
step timeout 400 cargo run --quiet --release -p callbridge-web-service -- --smoke
step cargo build --quiet -p callbridge-desktop
for how in "" --blocking; do
    # shellcheck disable=SC2086 # no option is no argument
    step timeout 60 xvfb-run -a target/debug/callbridge-desktop --smoke --xdotool $how
done
