#!/usr/bin/env bash
# What the feature `metrics` costs, in two builds that run by turns: medians of so many runs of each.
#
#   scripts/overhead.sh [RUNS]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh
runs=${1:-15}

cargo build --quiet --release -p callbridge-soak --bin overhead
cp "$built/release/overhead" "$built/overhead-off"
cargo build --quiet --release -p callbridge-soak --bin overhead --features metrics
cp "$built/release/overhead" "$built/overhead-on"

# By turns, under a command that is put before them.
by_turns() {
    for run in $(seq "$runs"); do
        order="off on"
        if [ $((run % 2)) = 0 ]; then order="on off"; fi
        for which in $order; do
            echo "$which, $("$@" "$built/overhead-$which")"
        done
    done | python3 -c '
import statistics, sys
figures = {}
for line in sys.stdin:
    which, *rest = line.strip().split(", ")
    for figure in rest:
        what, nanos = figure.rsplit(" ", 1)
        figures.setdefault(what, {}).setdefault(which, []).append(float(nanos))
for what, by in figures.items():
    off, on = (statistics.median(by[which]) for which in ("off", "on"))
    low, high = min(by["off"]), max(by["off"])
    print(f"{what}: {off:.1f} ns without ({low:.1f} to {high:.1f}), {on:.1f} ns with: {on / off:.3f}")
'
}

by_turns env
echo "the same on one core, where a wake-up costs the same each time:"
by_turns taskset -c 0
