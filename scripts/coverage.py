#!/usr/bin/env python3
"""Adds up by room what scripts/coverage.sh measured.

    scripts/coverage.py LCOV UNCOVERED PERCENT

Writes the lines of src/ that no test ran to UNCOVERED; fails below PERCENT of all lines.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"


def tests_of(text):
    """The numbers of the lines in `mod tests` and the like, up to the end of the file or the closing brace."""
    lines, inside = set(), False
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"#\[cfg\((all\()?test\b", line):
            inside = True
        if inside:
            lines.add(number)
            inside = line != "}" and not re.match(r"(pub )?(mod|use) [^{]*;$", line)
    return lines


def main():
    lcov, uncovered, least = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    hits = defaultdict(dict)
    for line in lcov.read_text().splitlines():
        kind, _, value = line.partition(":")
        if kind == "SF":
            file = Path(value)
        elif kind == "DA":
            number, count = map(int, value.split(",")[:2])
            hits[file][number] = max(count, hits[file].get(number, 0))
    rooms, missed = defaultdict(lambda: [0, 0]), []
    for file, lines in sorted(hits.items()):
        parts = file.relative_to(SRC).parts
        if "shuttle_tests" in parts or re.search(r"(^|_)(tests|model)\.rs$", parts[-1]) or "tests" in parts:
            continue
        text = file.read_text()
        tests, texts = tests_of(text), text.splitlines()
        room = rooms[parts[0] if len(parts) > 1 else "src"]
        for number, count in sorted(lines.items()):
            if number in tests:
                continue
            room[0] += 1
            room[1] += count > 0
            if count == 0:
                missed.append(f"{file.relative_to(ROOT)}:{number}: {texts[number - 1].strip()}")
    uncovered.write_text("\n".join(missed) + "\n")
    print("| room | lines | run by tests | |\n|---|--:|--:|--:|")
    total = [sum(room[i] for room in rooms.values()) for i in (0, 1)]
    for name, (lines, run) in [*sorted(rooms.items()), ("all", total)]:
        print(f"| {name} | {lines} | {run} | {100 * run / lines:.1f} % |")
    sys.exit(100 * total[1] / total[0] < least)


if __name__ == "__main__":
    main()
