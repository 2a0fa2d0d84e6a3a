#!/bin/sh
# Write the locked requirements of every recipe again, for both architectures, from the *.in files.
# Usage: containers/lock.sh [uv pip compile's options, such as --upgrade]
set -eu
cd "$(dirname "$0")"
for source in */requirements*.in; do
    echo "locking $source" >&2
    uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links "$@" "$source" --output-file "${source%.in}.txt"
done
