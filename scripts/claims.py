#!/usr/bin/env python3
"""Looks whether each test that docs/TESTING.md names exists."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def has(file, name):
    test = rf"#\[(?:tokio::)?test[^\n]*\]\s*(?:#\[[^\n]*\]\s*)*(?:async )?fn {name}\("
    return file.is_file() and re.search(test, file.read_text())


named = re.findall(r"`(tests/[\w/]+\.rs)::(\w+)`", (ROOT / "docs/TESTING.md").read_text())
missing = [f"{file}::{name}" for file, name in named if not has(ROOT / file, name)]
if missing or not named:
    sys.exit("docs/TESTING.md names tests that don't exist:\n  " + "\n  ".join(missing))
print(f"{len(named)} tests named, all there")
