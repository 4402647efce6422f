#!/usr/bin/env bash
# Looks at what the crate brings along: its dependencies' licences, and that none is there twice.
#
#   scripts/dependencies.sh             asks cargo; no network
#   scripts/dependencies.sh audit       cargo-deny with deny.toml, known holes included, which it fetches
#   scripts/dependencies.sh audit bans licenses sources     without these; installs it if it isn't there
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = audit ]; then
    export PATH=$PWD/target/tools/bin:$PATH
    command -v cargo-deny >/dev/null || cargo install --quiet --locked --root target/tools cargo-deny
    exec cargo deny --manifest-path Cargo.toml check "${@:2}"
fi

tree=(cargo tree --quiet --locked -p callbridge --all-features --prefix none)
for target in x86_64-unknown-linux-gnu x86_64-pc-windows-msvc aarch64-apple-darwin x86_64-unknown-freebsd; do
    tree+=(--target "$target")
done

twice=$("${tree[@]}" -e normal --duplicates)
[ -z "$twice" ] || { echo "more than one version of"; echo "$twice"; exit 1; }

packages=$("${tree[@]}" -e normal,build --format '{l}: {p}' | sed 's/ (\*)$//; s/ (proc-macro)$//; /^$/d' | sort -u)
# Ours to use under MIT or Apache-2.0; the tables of unicode-ident are used while compiling.
others=$(grep -vE '^([^:]* OR )?(MIT|Apache-2\.0)( OR [^:]*)?: |^(MIT/Apache-2\.0|Apache-2\.0/MIT): |: unicode-ident ' <<<"$packages" || true)
[ -z "$others" ] || { echo "other licences:"; echo "$others"; exit 1; }

echo "$(wc -l <<<"$packages") packages on all systems together, the crate included; none twice"
