#!/usr/bin/env python3
"""Writes the recipes of examples/cookbook into docs/COOKBOOK.md.

    scripts/cookbook.py            writes the page
    scripts/cookbook.py --check    fails if it is out of date

A recipe's title and text are its file's head comment, in the order of RECIPES in main.rs.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "examples/cookbook/src"
PAGE = ROOT / "docs/COOKBOOK.md"
MARK = "<!-- From here on: scripts/cookbook.py -->\n"


def recipe(name):
    file = SRC / f"{name}.rs"
    lines = file.read_text().splitlines()
    head = [line for line in lines if line.startswith("//!")]
    text = "\n".join(line[4:] for line in head).replace("# ", "## ", 1)
    code = "\n".join(lines[len(head):]).strip()
    # As a program of its own.
    code = re.sub(r"^pub\(crate\) ((?:async )?fn main)", r"\1", code, flags=re.M)
    failure = "Box<dyn std::error::Error + Send + Sync>"
    code = code.replace("crate::Ended", f"Result<(), {failure}>").replace("crate::Failure", failure)
    where = f"[`{name}.rs`](../examples/cookbook/src/{name}.rs)"
    return text, f"{text}\n\n{where}:\n\n```rust\n{code}\n```\n"


def anchor(title):
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


names = re.findall(r'^\s+\("(\w+)",', (SRC / "main.rs").read_text(), flags=re.M)
recipes = [recipe(name) for name in names]
titles = [text.splitlines()[0].removeprefix("## ") for text, _ in recipes]
contents = "".join(f"{i}. [{title}](#{anchor(title)})\n" for i, title in enumerate(titles, 1))
page = PAGE.read_text()
made = page.split(MARK)[0] + MARK + "\n" + contents + "\n" + "\n".join(body for _, body in recipes)
if "--check" not in sys.argv:
    PAGE.write_text(made)
elif made != page:
    sys.exit(f"{PAGE.name} is out of date: run scripts/cookbook.py")
