# Sourced by the scripts beside it: how they speak, and the questions that more than one of them asks.
# shellcheck shell=bash

step() { printf '\n==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
fail() { printf '\n%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Prints why this user cannot mount, and succeeds; fails where nothing is in the way.
why_no_mount() {
    if [ ! -e /dev/fuse ]; then
        echo "no mounts here: /dev/fuse is missing (load the module: modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
    elif [ "$(id -u)" = 0 ]; then
        if can_mount_as_root; then return 1; fi
        echo "no mounts here: root may not mount in this container (run it with --device /dev/fuse --cap-add SYS_ADMIN)"
    elif ! command -v fusermount3 >/dev/null; then
        echo "no mounts for an ordinary user here: fusermount3 is missing (apt-get install fuse3)"
    else
        return 1
    fi
}

# CAP_SYS_ADMIN is bit 21 of the effective set.
can_mount_as_root() {
    local effective
    effective=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
    (((16#$effective >> 21) & 1))
}

# Puts cargo on the PATH: rustup's installer changes the profile, which a shell that is open already has not read.
find_cargo() {
    if command -v cargo >/dev/null; then return; fi
    if [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
        export PATH
        return
    fi
    return 1
}

# Where cargo builds, whatever the environment and the user's configuration say.
target_dir() {
    cargo metadata --format-version 1 --no-deps --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}
