#!/usr/bin/env bash
# What is looked at without being run: form, lints, docs, spelling, links, signatures.
#
#   scripts/lint.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

# Spelling: a program that PyPI has ready-made; _typos.toml has the words it can't know.
spelling() {
    local venv=target/venv
    if [ ! -x $venv/bin/typos ]; then
        install_debian python3-venv
        python3 -m venv $venv
        $venv/bin/pip install --quiet --disable-pip-version-check typos==1.52.0
    fi
    $venv/bin/typos
}

step cargo fmt --all --check
step cargo clippy --workspace --all-targets --all-features -- -D warnings
step env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features
step spelling
step scripts/links.py
step scripts/architecture.py --check
step scripts/api.py --check
step scripts/counts.py --check
step scripts/cookbook.py --check
step scripts/claims.py
step scripts/public_types.py
step scripts/dependencies.sh
