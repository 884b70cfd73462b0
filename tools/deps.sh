# Sourced by quickstart and check: installs the Debian packages that are missing, by name.
# deps_install "packages" installs; needs apt, and sudo when not root.

deps_as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "llmkit: cannot install packages: be root or install sudo; wanted: $*" >&2
        return 1
    fi
}

deps_have() {
    dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

# The first name of "a|b" that this release knows; names changed between Debian 12 and 13.
deps_name() {
    for deps_candidate in $(echo "$1" | tr '|' ' '); do
        if deps_have "$deps_candidate" || apt-cache show "$deps_candidate" >/dev/null 2>&1; then
            echo "$deps_candidate"
            return 0
        fi
    done
    return 1
}

deps_any_installed() {
    for deps_candidate in $(echo "$1" | tr '|' ' '); do
        deps_have "$deps_candidate" && return 0
    done
    return 1
}

# Leaf libraries that Debian 12 does not have come from Debian 13, each alone, through a private
# apt root made of the machine's own mirror: its package sources stay as they are.
deps_from_trixie() (
    set -e
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    chmod 755 "$folder"
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' \
        'Codename: bookworm' | head -n 1)
    if [ -z "$mirror" ]; then
        echo "llmkit: no Debian mirror found in this machine's package sources" >&2
        exit 1
    fi
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/files"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" \
        >"$folder/trixie.list"
    options="-o Dir::Etc::sourcelist=$folder/trixie.list -o Dir::Etc::sourceparts=-
        -o Dir::State::Lists=$folder/lists -o Dir::Cache=$folder/cache"
    # shellcheck disable=SC2086
    deps_as_root apt-get -qq $options update
    cd "$folder/files"
    # shellcheck disable=SC2086,SC2048
    deps_as_root apt-get -qq $options -o APT::Sandbox::User=root download $*
    deps_as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "$folder"/files/*.deb >/dev/null
)

deps_install() {
    deps_missing=""
    for deps_package in $1; do
        deps_any_installed "$deps_package" || deps_missing="$deps_missing $deps_package"
    done
    deps_leaves=""
    if ! deps_have libyyjson-dev; then deps_leaves="libyyjson0 libyyjson-dev"; fi
    if ! deps_have libllhttp-dev; then deps_leaves="$deps_leaves libllhttp9.2 libllhttp-dev"; fi
    [ -n "$deps_missing$deps_leaves" ] || return 0
    echo "== installing packages:$deps_missing $deps_leaves"
    deps_as_root apt-get -qq update || return 1
    deps_names=""
    for deps_package in $deps_missing; do
        if ! deps_found=$(deps_name "$deps_package"); then
            echo "llmkit: this release has no package named $deps_package" >&2
            return 1
        fi
        deps_names="$deps_names $deps_found"
    done
    if [ -n "$deps_leaves" ]; then
        if apt-cache show libyyjson-dev >/dev/null 2>&1 && apt-cache show libllhttp-dev >/dev/null 2>&1; then
            deps_names="$deps_names libyyjson-dev libllhttp-dev"
            deps_leaves=""
        fi
    fi
    if [ -n "$deps_names" ]; then
        # shellcheck disable=SC2086
        deps_as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $deps_names \
            >/dev/null || return 1
    fi
    # shellcheck disable=SC2086
    [ -z "$deps_leaves" ] || deps_from_trixie $deps_leaves
}

DEPS_BUILD="gcc libc6-dev meson ninja-build pkg-config|pkgconf liburing-dev libcurl4-openssl-dev libssl-dev
    libmsgpack-dev|libmsgpack-c-dev libcyaml-dev libyaml-dev libcmocka-dev ca-certificates"
DEPS_CHECK="python3 spin universal-ctags strace scdoc curl procps iproute2"
