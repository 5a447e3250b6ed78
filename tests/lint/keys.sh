#!/usr/bin/env bash
# docs/configuration.md is what the program prints of its own table: tests/lint/keys.sh ROOT BUILD_DIR
set -u
sed -n '/^## /,$p' "$1/docs/configuration.md" | diff - <("$2/moetrain" --keys) || {
    echo "docs/configuration.md is out of date; after its first paragraph it is: moetrain --keys"
    exit 1
}
