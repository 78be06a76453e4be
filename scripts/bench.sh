#!/usr/bin/env bash
# The project benchmark: builds in release, makes the large models, measures. Called by `make bench`.
# Arguments go to the benchmark, such as: scripts/bench.sh --only iris --turns 3
set -euo pipefail
cd "$(dirname "$0")/.."
export ORT_DISABLE_TELEMETRY=1

models=.outhaul/bench-models
make_bert() { # folder, options...
    [ -f "$models/$1/$1/1/model.onnx" ] && return
    venv=$(sh scripts/venv.sh models python/requirements-models.txt)
    "$venv/bin/python" examples/make_models.py bert --out "$models/$1/$1" "${@:2}" >&2
}
make_bert minilm --preset minilm --int8
make_bert large --preset weights-250mb

cargo build --release --locked -p outhaul -p outhaul-bench

# The real all-MiniLM-L6-v2 in fp32, as import makes it, and in int8, as onnxruntime's own tool makes that.
texts=$models/texts
target=$(cargo metadata --locked --no-deps --format-version 1 | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
if [ ! -f "$texts/all-minilm/1/model.onnx" ]; then
    minilm=$(sh scripts/minilm.sh)
    "$target/release/outhaul" import "$minilm" --name all-minilm --to "$texts" >&2
fi
if [ ! -f "$texts/all-minilm-int8/1/model.onnx" ]; then
    venv=$(sh scripts/venv.sh models python/requirements-models.txt)
    mkdir -p "$texts/all-minilm-int8/1"
    cp "$texts/all-minilm/model.toml" "$texts/all-minilm/tokenizer.json" "$texts/all-minilm-int8/"
    "$venv/bin/python" - "$texts/all-minilm/1/model.onnx" "$texts/all-minilm-int8/1/model.onnx" >&2 <<'PYTHON'
import sys

from onnxruntime.quantization import QuantType, quantize_dynamic

quantize_dynamic(sys.argv[1], sys.argv[2], weight_type=QuantType.QInt8)
PYTHON
fi
cargo run --release --locked --quiet -p outhaul-bench -- run "$@"
if [ $# = 0 ]; then
    cargo run --release --locked --quiet -p outhaul-bench -- images
    for part in routes rollouts shadow fairness; do
        cargo run --release --locked --quiet -p outhaul-bench -- "$part"
    done
    cargo run --release --locked --quiet -p outhaul-protocol --example csv_speed
fi
