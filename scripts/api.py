#!/usr/bin/env python3
"""Writes the public API as text into docs/api.txt, one line for each thing, so that a change of it is seen.

    scripts/api.py            writes the file
    scripts/api.py --check    fails if it is out of date
    scripts/api.py --names    prints the paths of the items alone

With all features, on Linux. What there is comes from what rustdoc writes as JSON, which isn't stable; the
signatures are the sources' own text.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "target" / "public_types"
PAGE = ROOT / "docs" / "api.txt"
ITEMS = ("struct", "enum", "union", "trait", "function", "type_alias", "assoc_const", "constant", "macro")


def document():
    env = dict(os.environ, RUSTC_BOOTSTRAP="1", CARGO_TARGET_DIR=str(TARGET))
    subprocess.run(
        ["cargo", "rustdoc", "--quiet", "-p", "callbridge", "--lib", "--all-features", "--",
         "-Zunstable-options", "--output-format", "json"],
        cwd=ROOT, env=env, check=True)
    return json.loads((TARGET / "doc" / "callbridge.json").read_text())


def source(item):
    """The item's own text, up to its body."""
    (line, column), (last, _) = item["span"]["begin"], item["span"]["end"]
    lines = (ROOT / item["span"]["filename"]).read_text().split("\n")[line - 1:last]
    text = "\n".join([lines[0][column - 1:], *lines[1:]])
    text = re.sub(r"//[^\n]*|#\[[^\]]*\]", "", text)
    word = re.match(r"(?:pub |unsafe |async )*(?:const (?=fn))?(\w+) ?(!?)", text)
    if word and word[2]:
        return f"{kind(item)}, by a macro"
    end = {"struct": r"[({;]", "const": r"[=;]", "type": r";"}.get(word and word[1], r"[{;]")
    text = re.split(end, text)[0]
    text = re.sub(r"\s+", " ", text).strip().rstrip(",")
    return re.sub(r",? ([)\]>])", r"\1", re.sub(r"([(\[<]) ", r"\1", text))


def kind(item):
    return next(iter(item["inner"]))


class Api:
    def __init__(self, docs):
        self.index = docs["index"]
        self.lines, self.names, self.seen = [], [], {}

    def line(self, path, text):
        self.lines.append((path, text))

    def get(self, identity):
        return self.index.get(str(identity))

    def module(self, module, path):
        """What the module has, its own first; what it only shows again is one line."""
        uses = []
        for child in map(self.get, module["inner"]["module"]["items"]):
            if child is None:
                continue
            if kind(child) == "module":
                self.module(child, f"{path}::{child['name']}")
            elif kind(child) == "use":
                uses.append(child["inner"]["use"])
            else:
                self.item(child, f"{path}::{child['name']}")
        for use in sorted(uses, key=lambda use: use["name"]):
            target = self.get(use["id"])
            if target is not None:
                self.item(target, f"{path}::{use['name']}")

    def item(self, item, path):
        if (known := self.seen.setdefault(item["id"], path)) != path:
            self.line(path, f"pub use {known}")
            return
        if kind(item) in ITEMS:
            self.names.append(path)
        inner = item["inner"][kind(item)]
        open_ended = "#[non_exhaustive] " if "non_exhaustive" in item["attrs"] else ""
        if kind(item) == "macro":
            self.line(path, "macro")
            return
        if kind(item) == "struct_field":
            self.line(path, source(item))
            return
        if kind(item) == "variant":
            self.line(path, open_ended + "variant" + (" " + self.tuple_of(item) if self.tuple_of(item) else ""))
            if isinstance(inner["kind"], dict) and "struct" in inner["kind"]:
                self.members(inner["kind"]["struct"]["fields"], path)
            return
        self.line(path, open_ended + source(item))
        self.members(inner.get("items", []), path)
        self.members(inner.get("variants", []), path)
        if kind(item) == "struct" and isinstance(inner["kind"], dict):
            fields = inner["kind"].get("plain", {}).get("fields") or inner["kind"].get("tuple") or []
            self.members(fields, path)
        traits, derived = set(), set()
        for found in map(self.get, inner.get("impls", [])):
            implementation = found["inner"]["impl"]
            if implementation["blanket_impl"] or implementation["is_synthetic"]:
                continue
            if implementation["trait"] is None:
                self.members(implementation["items"], path)
            elif found["span"] and source(found).startswith(("impl<", "impl ", "unsafe impl")) and "macro" not in source(found):
                traits.add(source(found))
            else:
                derived.add(implementation["trait"]["path"].split("::")[-1])
        for name in sorted(traits):
            self.line(path, name)
        if derived := sorted(derived - {"StructuralPartialEq"}):
            self.line(path, f"derive {', '.join(derived)}")

    def members(self, ids, path):
        for member in map(self.get, ids):
            if member is not None and (member["visibility"] == "public" or kind(member) in ("variant", "assoc_type")
                                       or member["visibility"] == "default" and "::" in path):
                self.item(member, f"{path}::{member['name']}")

    def tuple_of(self, variant):
        shape = variant["inner"]["variant"]["kind"]
        if not (isinstance(shape, dict) and "tuple" in shape):
            return ""
        fields = [source(self.get(field)) if field is not None else "_" for field in shape["tuple"]]
        return "(" + ", ".join("_" if "by a macro" in field else field.removesuffix(")") for field in fields) + ")"


def api():
    docs = document()
    found = Api(docs)
    root = docs["index"][str(docs["root"])]
    # Modules first: a name's path is that of its room, and the root shows some again.
    items = root["inner"]["module"]["items"]
    items.sort(key=lambda identity: (kind(docs["index"][str(identity)]) == "use", docs["index"][str(identity)]["name"] or ""))
    found.module(root, "callbridge")
    return found


def main():
    found = api()
    if "--names" in sys.argv:
        print("\n".join(found.names))
        return
    text = "".join(f"{path}: {what}\n" for path, what in sorted(found.lines))
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        sys.exit("docs/api.txt is out of date: run scripts/api.py, look at what changed, and commit it")


if __name__ == "__main__":
    main()
