#!/usr/bin/env python3
"""Finds links in the pages of this repository that lead nowhere. Asks no network.

    scripts/links.py

A link to a file must name one, and its anchor a heading of it. What the package takes along must not
link to what it leaves behind, but for folders, which a registry's page shows by way of the repository.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def anchor(heading):
    """The anchor that a forge gives to a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def without_code(text):
    text = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.S | re.M)
    return re.sub(r"`[^`\n]*`", lambda code: re.sub(r"[\[\]()]", " ", code.group()), text)


def headings(page):
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.S | re.M)
    return {anchor(line) for line in re.findall(r"^#+ (.*)$", text, flags=re.M)}


def broken(page):
    text = without_code(page.read_text())
    named = re.findall(r"^\[[^\]]+\]: (\S+)", text, flags=re.M)
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + named:
        if re.match(r"[a-z]+:", link) or "::" in link:
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield link
        elif fragment and target.suffix == ".md" and fragment not in headings(target):
            yield link


def main():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, check=True, capture_output=True, text=True)
    pages = [ROOT / name for name in listed.stdout.split()]
    found = [f"{page.relative_to(ROOT)}: {link}" for page in pages for link in broken(page)]
    print("\n".join(found) or f"{len(pages)} pages, no broken link")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
