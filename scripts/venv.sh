#!/bin/sh
# Makes a Python environment inside the project and prints its folder.
#
#     scripts/venv.sh NAME REQUIREMENTS
#
# The environment is .outhaul/venv-NAME. It is made anew when the requirements file or the Python version has changed, and
# otherwise returned at once, so that a Makefile can call this every time:
#
#     "$(scripts/venv.sh tests python/requirements-tests.txt)/bin/python" -m pytest
#
# PYTHON names the interpreter (default python3). Progress goes to stderr, the folder to stdout.
# Two calls for the same NAME at the same time are not safe.
set -eu

if [ $# -ne 2 ] || [ ! -f "$2" ]; then
    echo "usage: scripts/venv.sh NAME REQUIREMENTS (an existing file)" >&2
    exit 2
fi
name=$1
requirements=$2
python=${PYTHON:-python3}
project=$(cd "$(dirname "$0")/.." && pwd)
folder=$project/.outhaul/venv-$name

if ! python_version=$("$python" --version 2>&1); then
    echo "scripts/venv.sh: $python was not found; install Python 3.11 or later" >&2
    exit 1
fi
stamp="$python_version, requirements $(cksum <"$requirements")"

if [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ] && [ -x "$folder/bin/python" ]; then
    echo "$folder"
    exit 0
fi

echo "making the Python environment $folder" >&2
# From scratch each time: upgrading in place would leave packages that the file no longer names.
rm -rf "$folder"
mkdir -p "$project/.outhaul"
if ! "$python" -m venv "$folder" >&2; then
    rm -rf "$folder"
    echo "scripts/venv.sh: $python has no working venv module (Debian and Ubuntu: apt install python3-venv)" >&2
    exit 1
fi
"$folder/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --requirement "$requirements" >&2
# Written last: an installation cut short is started again.
echo "$stamp" >"$folder/stamp"
echo "$folder"
