#!/bin/sh
# region-layout-test.sh PROGRAM PAGE: the page in the tree is what the program prints.
"$1" | diff -u "$2" - && exit 0
echo "docs/region-layout.md is out of date: run $1 > docs/region-layout.md" >&2
exit 1
