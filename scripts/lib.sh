# shellcheck shell=bash
# What the scripts share: `source scripts/lib.sh` from the root of the repository.
# Every script runs on a bare Debian or Ubuntu with cargo, and installs what it needs.

step() {
    printf '\n=== %s\n' "$*"
    local began=$SECONDS
    "$@"
    printf '=== done in %s s\n' "$((SECONDS - began))"
}

# Debian's packages, where there is apt; only those that are missing.
install_debian() {
    command -v apt-get >/dev/null || return 0
    local missing=() name
    for name in "$@"; do
        dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    local sudo=() apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    "${sudo[@]}" "${apt[@]}" update && "${sudo[@]}" "${apt[@]}" install -y "${missing[@]}" >/dev/null
}

# From here on cargo has a compiler that may build the standard library too: for systems that no
# toolchain here has it for, and with other flags. rustup's nightly with rust-src, or Debian's own.
use_std_sources() {
    if rustup component list --toolchain nightly --installed 2>/dev/null | grep -q '^rust-src'; then
        export RUSTUP_TOOLCHAIN=nightly
    else
        install_debian rustc-web rust-web-src
        export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1
    fi
}


# Where cargo puts what it builds.
built=${CARGO_TARGET_DIR:-target}

# Programs that run optimised. All in one build, with one set of features, so that what they share is built once.
optimised=(-p callbridge-benches -p callbridge-c-listener -p callbridge-relay -p callbridge-soak -p callbridge-web-service)

build_optimised() {
    step cargo build --quiet --release "${optimised[@]}" --bins
}
