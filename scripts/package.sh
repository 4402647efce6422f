#!/usr/bin/env bash
# Looks at what would be published: packs it, unpacks it elsewhere, and tests and documents it there.
#
#   scripts/package.sh [check]     with check, compiles its tests and doesn't run them
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

export CARGO_TARGET_DIR=$PWD/target/package/build
rm -f "$CARGO_TARGET_DIR"/package/callbridge-*.crate
cargo package --quiet -p callbridge --allow-dirty --no-verify
packed=("$CARGO_TARGET_DIR"/package/callbridge-*.crate)
elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
tar -xzf "${packed[0]}" -C "$elsewhere" --strip-components=1
echo "$(basename "${packed[0]}"): $(du -k "${packed[0]}" | cut -f 1) KiB, $(find "$elsewhere" -type f | wc -l) files"
# Nobody has named a public home yet; a registry's page finds the README's charts and pages by it.
grep -q '^repository = ' Cargo.toml || echo "before it is published: name the repository in Cargo.toml"
cd "$elsewhere"

# As docs.rs does it: all features, with its flag, which needs what isn't stable.
docs() {
    RUSTC_BOOTSTRAP=1 RUSTDOCFLAGS="--cfg docsrs -D warnings" cargo doc --quiet --no-deps --all-features
}

step docs
if [ "${1:-}" = check ]; then
    step cargo test --quiet --no-run
else
    step cargo test --quiet
fi
