#!/usr/bin/env python3
"""Lists the crates whose types are in callbridge's public signatures, and fails at one that isn't allowed.

    scripts/public_types.py

Reads what rustdoc writes as JSON, as scripts/api.py does.
"""

import sys

from api import document

# A new major version of one of these is one of callbridge's too.
ALLOWED = {"tokio", "tokio_util", "bytes", "futures_core", "futures_sink"}
STD = {"core", "alloc", "std"}


def named(node):
    """The ids of all types and traits that are named below."""
    if isinstance(node, dict):
        if {"id", "path"} <= node.keys():
            yield node["id"]
        for value in node.values():
            yield from named(value)
    elif isinstance(node, list):
        for value in node:
            yield from named(value)


def main():
    docs = document()
    crates = {}
    for item in docs["index"].values():
        if item["crate_id"] != 0:
            continue
        implementation = item["inner"].get("impl")
        if implementation and (implementation["blanket_impl"] or implementation["is_synthetic"]):
            continue
        for identity in named(item["inner"]):
            path = docs["paths"].get(str(identity))
            if path and path["crate_id"] != 0:
                crate = docs["external_crates"][str(path["crate_id"])]["name"]
                crates.setdefault(crate, {}).setdefault("::".join(path["path"]), item["name"] or "an impl")
    wrong = 0
    for crate, types in sorted(crates.items()):
        if crate in STD:
            continue
        allowed = crate in ALLOWED
        wrong += not allowed
        print(f"{crate}{'' if allowed else ': NOT ALLOWED'}")
        for name, where in sorted(types.items()):
            print(f"    {name}" + ("" if allowed else f", in {where}"))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
