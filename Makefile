# Outhaul's commands for people and for CI. `make help` lists them.

# Tests and demo share one target folder; CI points it outside the checkout.
CARGO ?= cargo
# The official ONNX Runtime builds report usage unless told not to; Outhaul tells them itself, the
# Python scripts are told here.
export ORT_DISABLE_TELEMETRY := 1

.PHONY: help demo build test lint unit clients fuzz bench models onnxruntime screenshots clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: onnxruntime ## Build in release, serve examples/models, send one real request
	$(CARGO) run --release --locked -p outhaul -- demo examples/models

build: ## Build the release binary
	$(CARGO) build --release --locked -p outhaul

onnxruntime: ## Fetch the official ONNX Runtime library into the project folder
	@sh scripts/fetch_onnxruntime.sh

test: onnxruntime ## Run everything that proves the project
	@bash scripts/test.sh

lint: ## Formatting, clippy, layers
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) xtask layers

unit: onnxruntime ## Rust tests only
	$(CARGO) nextest run --workspace --locked

clients: onnxruntime ## Real clients from PyPI against the built server
	@bash scripts/clients.sh

fuzz: ## Fuzz every decoder for a minute each (OUTHAUL_FUZZ_SECONDS)
	OUTHAUL_FUZZ_SECONDS=$${OUTHAUL_FUZZ_SECONDS:-60} $(CARGO) nextest run --locked -p outhaul-fuzz

bench: onnxruntime ## Print the benchmark table (minutes)
	@bash scripts/bench.sh

models: ## Make the example and test models anew
	@venv="$$(sh scripts/venv.sh models python/requirements-models.txt)" && \
	"$$venv/bin/python" examples/make_models.py && "$$venv/bin/python" testdata/make_models.py && \
	"$$venv/bin/python" testdata/make_text_models.py

screenshots: ## Take the pictures of the pages in docs/images anew; builds the server (debug)
	@OUTHAUL_SCREENSHOTS="$$(mktemp -d)" && export OUTHAUL_SCREENSHOTS && bash scripts/clients.sh -k test_pages && \
	cp "$$OUTHAUL_SCREENSHOTS/classifier.png" docs/images/page.png

clean: ## Remove what the project built or fetched
	$(CARGO) clean
	rm -rf .outhaul
