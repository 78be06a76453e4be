#!/bin/sh
# Puts the official TensorFlow Serving stubs into .outhaul/tensorflow-stubs and prints that folder.
#
#     scripts/tensorflow-stubs.sh PYTHON
#
# PYTHON is an interpreter with pip, such as that of .outhaul/venv-tests. The package tensorflow-serving-api wants all of
# TensorFlow; its stubs need nothing of it but the generated messages, so those alone are taken out of the wheel of
# tensorflow-cpu, which is of one platform and is run on none. The wheel has 270 MB: it is fetched once and not kept.
set -eu

if [ $# -ne 1 ]; then
    echo "usage: scripts/tensorflow-stubs.sh PYTHON" >&2
    exit 2
fi
python=$1
version=2.21.0
project=$(cd "$(dirname "$0")/.." && pwd)
folder=$project/.outhaul/tensorflow-stubs

if [ "$(cat "$folder/stamp" 2>/dev/null)" = "$version" ]; then
    echo "$folder"
    exit 0
fi
echo "fetching the stubs of TensorFlow Serving $version" >&2
rm -rf "$folder"
mkdir -p "$folder/wheels"
fetch() {
    "$python" -m pip download --quiet --no-input --disable-pip-version-check --no-cache-dir --no-deps --only-binary :all: \
        --dest "$folder/wheels" "$@" >&2
}
fetch "tensorflow-serving-api==$version"
fetch --python-version 3.11 --implementation cp --platform manylinux_2_27_x86_64 "tensorflow-cpu==$version"
"$python" - "$folder" >&2 <<'PYTHON'
import pathlib
import sys
import zipfile

folder = pathlib.Path(sys.argv[1])
for wheel in (folder / "wheels").glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            of_serving = name.startswith("tensorflow_serving/") and name.endswith(".py")
            if of_serving or name.startswith("tensorflow/") and name.endswith("_pb2.py"):
                archive.extract(name, folder)
PYTHON
rm -rf "$folder/wheels"
# Written last: what was cut short is begun again.
echo "$version" >"$folder/stamp"
echo "$folder"
