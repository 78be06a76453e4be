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
cargo run --release --locked --quiet -p outhaul-bench -- run "$@"
