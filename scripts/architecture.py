#!/usr/bin/env python3
"""Draws who imports whom into ARCHITECTURE.md, from the imports of src/.

    scripts/architecture.py            writes the picture
    scripts/architecture.py --check    fails if it is out of date, if an import doesn't go down, or if the
                                       page names a file or an item that src/ doesn't have

Imports are read without comments, tests and what only the docs use. A room is a folder of src/, and its
floor is below.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
PAGE = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- picture: scripts/architecture.py -->", "<!-- end of the picture -->"

# From the top down. An import goes from a room to one on a floor below.
FLOORS = [
    ["testing"],
    ["executor", "listener", "runner", "ffi"],
    ["bridge", "channel"],
    ["future"],
    ["sync"],
]
FLOOR = {room: len(FLOORS) - i for i, rooms in enumerate(FLOORS) for room in rooms}
# What the page has in code font and others define.
NOT_OURS = {"Handle", "Stream", "Pending", "src/", "unsafe", "unsafe_code"}
# Model checks of compositions, and what must not compile.
TESTS = {"shuttle_tests", "loom_tests.rs", "compile_fail.rs"}


def code_of(file):
    """The file without comments, texts, its tests and what only the docs use."""
    text = file.read_text()
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', text, flags=re.S)
    text = re.sub(r"#\[cfg\(doc\)\]\s*use [^;]*;", "", text)
    return re.split(r"#\[cfg\((?:all\()?test\b[^\n]*\]\s*mod \w+ \{", text)[0]


def flat(tree):
    """The first names of `a::b` or of `{a::b, c}`."""
    if not tree.startswith("{"):
        return [tree]
    names, depth, part = [], 0, ""
    for char in tree[1:]:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            break
        if char == "," and depth == 0:
            names, part = names + [part], ""
        else:
            part += char
    return [re.match(r"\w+", name.strip()).group(0) for name in names + [part] if name.strip()]


def root_names():
    """Where the names of the crate's root come from."""
    names = {}
    for room, tree in re.findall(r"pub use (\w+)::([^;]*);", code_of(SRC / "lib.rs")):
        for name in re.findall(r"\w+", tree):
            names[name] = room
    # A function and a folder of the same name: the path through the root is the folder.
    return {name: room for name, room in names.items() if name not in FLOOR}


def imports_of(file, names):
    """The other rooms that a file names."""
    path = file.relative_to(SRC).with_suffix("").parts
    module = path[:-1] if path[-1] == "mod" else path
    paths = re.findall(r"\bcrate::(\w+|\{[^;]*\})", code := code_of(file))
    for supers, rest in re.findall(r"\b((?:super::)+)(\w+|\{[^;]*\})", code):
        if supers.count("super") == len(module):
            paths.append(rest)
    for path in paths:
        for name in flat(path):
            room = name if name in FLOOR else names.get(name)
            if room and room != module[0]:
                yield room


def arrows():
    names, found = root_names(), {}
    for file in sorted(SRC.rglob("*.rs")):
        parts = file.relative_to(SRC).parts
        if len(parts) == 1 or TESTS & set(parts):
            continue
        if parts[0] not in FLOOR:
            sys.exit(f"src/{parts[0]} is on no floor: enter it in {sys.argv[0]}")
        for room in imports_of(file, names):
            found.setdefault((parts[0], room), file.relative_to(ROOT))
    return found


def picture(found):
    lines = ["```mermaid", "flowchart TB"]
    for number, rooms in zip(range(len(FLOORS), 0, -1), FLOORS):
        lines.append(f'    subgraph floor{number}["floor {number}"]')
        lines += [f"        {room}" for room in rooms]
        lines.append("    end")
    order = [room for rooms in FLOORS for room in rooms]
    for room in order:
        below = [other for other in order if (room, other) in found]
        if below:
            lines.append(f"    {room} --> {' & '.join(below)}")
    return "\n".join(lines + ["```"])


def unknown(page):
    """What the page has in code font, and src/ doesn't have."""
    page = re.sub(r"```.*?```", "", page, flags=re.S)
    text = "\n".join(file.read_text() for file in SRC.rglob("*.rs"))
    defined = set(re.findall(r"\b(?:fn|struct|enum|trait|type|mod|const|macro_rules!) (\w+)", text))
    # Variants, and other rooms.
    defined |= set(re.findall(r"^\s+(\w+)[,({]", text, flags=re.M)) | set(FLOOR)
    for span in re.findall(r"`([^`\n]+)`", page):
        if re.fullmatch(r"[\w/]+\.rs", span):
            known = (SRC / span).is_file()
        elif re.fullmatch(r"\w+/", span):
            known = any(path.is_dir() for path in SRC.rglob(span.rstrip("/")))
        elif re.fullmatch(r"(\w+::)*\w+", span):
            known = set(span.split("::")) <= defined
        else:
            known = True
        if not known:
            yield span


def main():
    found = arrows()
    wrong = [
        f"{file}: {room} (floor {FLOOR[room]}) imports {other} (floor {FLOOR[other]})"
        for (room, other), file in sorted(found.items())
        if FLOOR[other] >= FLOOR[room]
    ]
    if wrong:
        sys.exit("imports that don't go down:\n  " + "\n  ".join(wrong))
    page = PAGE.read_text()
    names = sorted(set(unknown(page)) - NOT_OURS)
    if names:
        sys.exit(f"{PAGE.name} names what src/ doesn't have: {', '.join(names)}")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    drawn = f"{before}{BEGIN}\n{picture(found)}\n{END}{after}"
    if "--check" not in sys.argv:
        PAGE.write_text(drawn)
    elif drawn != page:
        sys.exit(f"the picture in {PAGE.name} is out of date: run scripts/architecture.py")


if __name__ == "__main__":
    main()
