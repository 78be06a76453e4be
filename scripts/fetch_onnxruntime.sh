#!/bin/sh
# Fetches the official ONNX Runtime library out of its Python wheel, for Outhaul to open at run time.
#
#     scripts/fetch_onnxruntime.sh [FOLDER]
#
# FOLDER is .outhaul/onnxruntime in the project unless given. The library keeps its versioned name and gets a plain one,
# libonnxruntime.so (libonnxruntime.dylib on macOS). Nothing else of the wheel is kept and nothing is installed.
#
# The library is a convenience: Outhaul has an embedded engine. So every failure prints one line and still exits 0.
# When the folder already holds this version, the script returns at once.
set -eu

version=1.31.1
# Wheels are published per Python version, but the library inside does not depend on it. Asking for one fixed version lets any
# Python do the download.
wheel_python=3.12

project=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$project/.outhaul/onnxruntime}
stamp="onnxruntime $version $(uname -s) $(uname -m)"
case $(uname -s) in
    Darwin) plain_name=libonnxruntime.dylib ;;
    *) plain_name=libonnxruntime.so ;;
esac

if [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ] && [ -s "$folder/$plain_name" ]; then
    exit 0
fi

give_up() {
    echo "ONNX Runtime was not fetched ($1); Outhaul will use its embedded engine"
    exit 0
}

python=$(command -v python3 || command -v python) || give_up "no Python was found"
mkdir -p "$folder" 2>/dev/null || give_up "$folder cannot be made"
# Inside the folder, so that moving files into place is a rename.
scratch=$(mktemp -d "$folder/fetching.XXXXXX" 2>/dev/null) || give_up "$folder cannot be written"
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

if ! "$python" -m pip --version >/dev/null 2>&1; then
    # Debian's python3 has no pip of its own; a virtual environment may bring one.
    "$python" -m venv "$scratch/venv" >/dev/null 2>&1 || give_up "this Python has neither pip nor venv"
    python=$scratch/venv/bin/python
fi

if ! "$python" -m pip download --quiet --no-input --disable-pip-version-check --retries 1 --timeout 15 \
    --no-deps --only-binary=:all: --python-version "$wheel_python" --dest "$scratch" \
    "onnxruntime==$version" >"$scratch/log" 2>&1; then
    # pip says "no matching distribution" for both; the warnings before it tell them apart.
    if grep -qiE 'connection|timed out|resolution|unreachable|retries|proxy|ssl' "$scratch/log"; then
        give_up "the package index could not be reached"
    fi
    give_up "pip has no onnxruntime $version wheel for $(uname -s) $(uname -m)"
fi

"$python" - "$scratch" <<'PYTHON' || give_up "the wheel could not be unpacked"
"""Copies onnxruntime/capi/libonnxruntime* out of the one wheel in the folder named on the command line."""
import pathlib, shutil, sys, zipfile

scratch = pathlib.Path(sys.argv[1])
(wheel,) = scratch.glob("*.whl")
(scratch / "libraries").mkdir()
with zipfile.ZipFile(wheel) as archive:
    for entry in archive.namelist():
        folder, _, name = entry.rpartition("/")
        if folder == "onnxruntime/capi" and name.startswith("libonnxruntime"):
            with archive.open(entry) as source, open(scratch / "libraries" / name, "wb") as target:
                shutil.copyfileobj(source, target)
PYTHON

# libonnxruntime.so.1.31.1 or libonnxruntime.1.31.1.dylib; libonnxruntime_providers_shared.so does not match.
library=$(cd "$scratch/libraries" && ls | grep -E '^libonnxruntime\.(so|.*dylib)' | head -n 1) || true
[ -n "$library" ] || give_up "the wheel holds no libonnxruntime"

# Replaced by rename: a server that has the old library open keeps it whole.
rm -f "$folder/stamp"
mv -f "$scratch/libraries/"* "$folder/" || give_up "$folder cannot be written"
if [ "$library" != "$plain_name" ]; then
    ln -sf "$library" "$folder/$plain_name"
fi
echo "$stamp" >"$folder/stamp"
echo "ONNX Runtime $version fetched: $folder/$plain_name"
