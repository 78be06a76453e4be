#!/usr/bin/env bash
# Real clients from PyPI, unmodified, against the server as built from this checkout.
#
#     scripts/clients.sh [PYTEST ARGUMENTS]
#
# Makes the Python environments, builds the server (debug) and runs python/tests: those of model conversion (test_convert*) in an
# environment of their own, since they want other versions of the same packages. Arguments that name "convert" go to those,
# other arguments to the rest; without arguments all are run. Without Python it says so and passes, but in CI
# (where CI or OUTHAUL_REQUIRE_CLIENTS is set) it fails: there, a test that did not run proves nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
export ORT_DISABLE_TELEMETRY=1

# Beyond this something hangs. The tests take well under a minute; building is not counted.
limit=${OUTHAUL_CLIENTS_LIMIT:-600}

python=${PYTHON:-python3}
usable() { "$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
if ! usable && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "installing python3 and python3-venv" >&2
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends python3 python3-venv; } >/dev/null || true
fi
if ! usable; then
    echo "scripts/clients.sh: no Python 3.11 or later with venv, so real clients were not run against the server" >&2
    if [ -n "${CI:-}${OUTHAUL_REQUIRE_CLIENTS:-}" ]; then
        exit 1
    fi
    exit 0
fi
clients=yes conversion=yes
case "$*" in
    "") ;;
    *convert*) clients= ;;
    *) conversion= ;;
esac
if [ -n "$clients" ] && ! { command -v chromium && command -v chromedriver; } >/dev/null &&
    command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "installing chromium and its driver, for the tests of the pages" >&2
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium chromium-driver fonts-dejavu-core; } >/dev/null || true
fi
environment=$(sh scripts/venv.sh tests python/requirements-tests.txt)
if [ -n "$clients" ]; then
    # Here, so that the time this takes the first time is not counted.
    sh scripts/tensorflow-stubs.sh "$environment/bin/python" >/dev/null
fi

cargo build --locked -p outhaul
target=$(cargo metadata --locked --no-deps --format-version 1 |
    "$environment/bin/python" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
export OUTHAUL_BINARY="$target/debug/outhaul"
if [ ! -x "$OUTHAUL_BINARY" ]; then
    echo "scripts/clients.sh: cargo built no $OUTHAUL_BINARY" >&2
    exit 1
fi

# Nothing is written beside the sources: neither byte code nor pytest's cache.
export PYTHONDONTWRITEBYTECODE=1
bounded=()
if command -v timeout >/dev/null; then
    bounded=(timeout --kill-after=10 "$limit")
fi
if [ -n "$clients" ]; then
    ${bounded[@]+"${bounded[@]}"} "$environment/bin/python" -m pytest -c python/pytest.ini python/tests --ignore-glob='*/test_convert*' "$@"
fi
if [ -n "$conversion" ]; then
    environment=$(sh scripts/venv.sh convert python/requirements-convert.txt)
    # The fixtures in conftest.py need the clients of the other environment.
    PYTHONPATH="$PWD/python" ${bounded[@]+"${bounded[@]}"} "$environment/bin/python" -m pytest -c python/pytest.ini --noconftest \
        python/tests/test_convert*.py "$@"
fi
