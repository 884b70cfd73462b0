#!/bin/sh
# Installs the third-party fake provider into DIR (outside the source tree), exactly the version
# and content that the lock file pins. tests/scenario/test_aimock.py calls it, and fails without it.
# It needs Node 20.15; where the system's is older (Debian 12 has 18), a Node comes along from
# the same registry, into DIR only.
#
#     tests/scenario/aimock/install.sh DIR
set -eu

if [ $# -ne 1 ]; then
	echo "usage: $0 DIR" >&2
	exit 2
fi
if ! command -v npm >/dev/null; then
	echo "$0: npm is missing: install the packages nodejs and npm" >&2
	exit 1
fi
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
mkdir -p "$1"
cd "$1"

optional=--omit=optional
if ! node -e 'process.exit(typeof require("zlib").crc32 === "function" ? 0 : 1)'; then
	optional=--include=optional
fi
if cmp -s "$here/package-lock.json" .installed; then
	exit 0
fi
cp "$here/package.json" "$here/package-lock.json" .
npm ci --omit=dev "$optional" --ignore-scripts --no-audit --no-fund --loglevel=error
cp package-lock.json .installed
