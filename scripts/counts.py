#!/usr/bin/env python3
"""Counts what a house is judged by, so that it can be compared before and after a change.

    scripts/counts.py            all counts
    scripts/counts.py --check    fails at what must be none: private words, imports in a circle or upward

Code lines are without comments, docs, blank lines and tests. Public items are those of docs/api.txt:
types, traits, functions, methods and constants, not fields, variants and implementations.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

sys.dont_write_bytecode = True
import architecture

ROOT, SRC = architecture.ROOT, architecture.SRC
API = ROOT / "docs" / "api.txt"
LONG, BLOCK = 300, 6
# The field has words for these: spin then park, backoff, stats or counters, workers, idle, wake or
# interrupt. As a word of its own, or as a part of an identifier.
WORDS = ("nap", "naps", "rhythm", "crew", "roster", "desk", "seat", "seats", "bed", "books", "nudge", "nudges",
         "farewell", "bury", "ledger", "stragglers", "leavers")
# In the crate this is the poll timeout; programs may have a clock that ticks.
SOURCE_WORDS = ("tick", "ticks", "habit", "lane")
# An executor, its jobs and its threads are one thing in three files.
KNOWN = {"executor/core.rs"}
WHERE = ("src", "tests", "examples", "benches", "soak", "relay", "fuzz/src", "fuzz/fuzz_targets", "docs")


def sources():
    for file in sorted(SRC.rglob("*.rs")):
        if not architecture.TESTS & set(file.relative_to(SRC).parts):
            yield file


def lines_of(file):
    """The lines of code, stripped."""
    text = re.split(r"#\[cfg\((?:all\()?test\b[^\n]*\]\s*mod \w+ \{", file.read_text())[0]
    lines = (re.sub(r"(^|\s)//.*", "", line).strip() for line in text.split("\n"))
    return [line for line in lines if line]


def imports_within(file):
    """The files of the same room that a file names."""
    path = file.relative_to(SRC).with_suffix("").parts
    module = path[:-1] if path[-1] == "mod" else path
    code = architecture.code_of(file)
    found = set()

    def note(parts):
        while parts:
            for name in (SRC.joinpath(*parts).with_suffix(".rs"), SRC.joinpath(*parts) / "mod.rs"):
                if name.is_file() and name.parent != SRC:
                    found.add(name)
                    return
            parts = parts[:-1]

    for use in re.findall(r"\buse ((?:crate|super|self)::[^;]*);", code):
        for full in expand(use):
            parts, base = full.split("::"), list(module)
            if parts[0] == "crate":
                base, parts = [], parts[1:]
            elif parts[0] == "self":
                parts = parts[1:]
            while parts and parts[0] == "super":
                base, parts = base[:-1], parts[1:]
            if base[:1] == [module[0]] or parts[:1] == [module[0]]:
                note(base + parts)
    # A room names its parts, and a type its builder, by nature.
    passed = {"mod.rs", "builder.rs"}
    return {other for other in found if other != file and other.name not in passed and file.name != "mod.rs"}


def expand(tree):
    """All paths of a use tree."""
    tree = re.sub(r"\s+", " ", tree.strip())
    match = re.fullmatch(r"((?:\w+::)*)\{(.*)\}", tree)
    if not match:
        return [tree.split(" as ")[0]]
    parts, depth, part = [], 0, ""
    for char in match[2] + ",":
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts, part = parts + [part.strip()], ""
        else:
            part += char
    return [match[1] + path for part in parts if part for path in expand(part)]


def circles():
    """Groups of files of a room that import each other (Tarjan's strongly connected components)."""
    graph = {file: imports_within(file) for file in sources()}
    number, low, stack, found = {}, {}, [], []

    def visit(node):
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(str(file.relative_to(SRC)) for file in group))

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return sorted(found)


def private_words():
    for where in WHERE:
        words = WORDS + SOURCE_WORDS if where == "src" else WORDS
        pattern = re.compile(r"(?<![a-z])(" + "|".join(words) + r")(?![a-z])", re.I)
        for file in sorted((ROOT / where).rglob("*")):
            if file.suffix not in (".rs", ".md") or {"target", "results"} & set(file.parts):
                continue
            for number, line in enumerate(file.read_text().split("\n"), 1):
                # CamelCase is words, too.
                if word := pattern.search(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", line)):
                    yield f"{file.relative_to(ROOT)}:{number}: {word[1]}"


def duplicates():
    """Blocks of lines that occur twice, longest first, none inside another."""
    places = defaultdict(list)
    code = {file: lines_of(file) for file in sources()}
    for file, lines in code.items():
        for at in range(len(lines) - BLOCK + 1):
            block = lines[at:at + BLOCK]
            # Imports and lone brackets are alike everywhere.
            if sum(len(line) > 3 and not line.startswith(("use ", "mod ", "pub use ")) for line in block) >= BLOCK - 1:
                places["\n".join(block)].append((file, at))
    covered, found = set(), []
    for spots in places.values():
        if len(spots) < 2:
            continue
        (file, at), (other, there) = spots[:2]
        if (file, at) in covered or (file == other and there - at < BLOCK):
            continue
        length = BLOCK
        while code[file][at + length:at + length + 1] == code[other][there + length:there + length + 1] != []:
            length += 1
        covered.update((file, at + i) for i in range(length))
        found.append((length, file.relative_to(SRC), other.relative_to(SRC), code[file][at]))
    return sorted(found, key=lambda block: -block[0])


def public():
    lines = API.read_text().splitlines()
    items = {path for path, what in (line.split(": ", 1) for line in lines)
             if re.match(r"(#\[non_exhaustive\] )?(pub )?(const |async |unsafe )*(struct|enum|trait|fn|type|const|macro)\b|function", what)
             and not what.startswith("pub use")}
    shown = {line.split(": ")[0] for line in lines}
    root = {path for path in shown if path.count("::") == 1}
    errors = {line.split(": ")[0] for line in lines
              if re.search(r": (impl.*\bError for |derive .*\bError\b)", line)}
    return items, root, errors


def main():
    rooms, long = defaultdict(int), []
    for file in sources():
        count = len(lines_of(file))
        parts = file.relative_to(SRC).parts
        rooms[parts[0] if len(parts) > 1 else "lib"] += count
        if count > LONG:
            long.append((count, str(file.relative_to(SRC))))
    rings, words = circles(), list(private_words())
    names = architecture.arrows()
    up = [f"{file}: {a} imports {b}" for (a, b), file in names.items() if architecture.FLOOR[b] >= architecture.FLOOR[a]]
    if "--check" in sys.argv:
        new = [ring for ring in rings if not KNOWN & set(ring)]
        if new or words or up:
            sys.exit("\n".join([*(" <-> ".join(ring) for ring in new), *words, *up]))
        return
    print("code lines: " + ", ".join(f"{room} {count}" for room, count in sorted(rooms.items())) + f"; all {sum(rooms.values())}")
    if API.exists():
        items, root, errors = public()
        print(f"public items: {len(items)}")
        print(f"names at the root: {len(root)}: {' '.join(sorted(path.split('::')[1] for path in root))}")
        print(f"error types: {len(errors)}: {' '.join(sorted(path.split('::', 1)[1] for path in errors))}")
    print(f"imports upward: {len(up)}", *up, sep="\n    ")
    print(f"circles in a room: {len(rings)}", *(" <-> ".join(ring) for ring in rings), sep="\n    ")
    print(f"files over {LONG} lines: {len(long)}", *(f"{count} {name}" for count, name in sorted(long, reverse=True)), sep="\n    ")
    blocks = duplicates()
    print(f"duplicated blocks of {BLOCK} lines or more: {len(blocks)}",
          *(f"{length} lines: {a}, {b}: {text}" for length, a, b, text in blocks), sep="\n    ")
    print(f"private words: {len(words)}", *words, sep="\n    ")


if __name__ == "__main__":
    main()
