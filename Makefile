# Everything that people and CI do with this repository. `make` alone prints this help.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow bench bench-serve bench-radio check format proto radio-software clean

help: ## print this help
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Runs once; again only when the versions change.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hardpath needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "Setting up $(VENV) (once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY) ## train, export, verify, sweep, serve and call digits: the whole job, into runs/demo
	@$(BIN)/hardpath demo --out runs/demo

test: $(READY) ## the tests
	@$(BIN)/python -m pytest -q -m "not slow"

test-slow: $(READY) ## the tests that take minutes
	@$(BIN)/python -m pytest -q -m slow

bench: $(READY) ## how fast the link is beside its peers: five minutes, into docs/bench
	@$(BIN)/python -m benchmarks.link

bench-serve: $(READY) ## how fast the server is beside its peers: ten minutes at most, into docs/bench
	@$(BIN)/python -m benchmarks.serving

bench-radio: $(READY) ## what the radio link reaches, through GNU Radio: five minutes, into docs/bench
	@$(BIN)/python -m benchmarks.radio

check: $(READY) ## style, types, imports between the rooms, stubs, permitted skips
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tests/check_stubs.py
	@$(BIN)/python tests/check_skips.py

format: $(READY) ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

proto: $(READY) ## write the stubs in serve/pb anew
	@PYTHON=$(BIN)/python proto/generate.sh

# GNU Radio, SoapySDR and libiio are no Python packages; without them their tests are skipped, which is told.
RADIO_PACKAGES := gnuradio python3-soapysdr soapysdr-tools soapysdr-module-audio pulseaudio pulseaudio-utils \
	libportaudio2 libiio-utils libiio0

radio-software: ## install the radio software that tests run against, where apt-get can (126 MB)
	@dpkg -s $(RADIO_PACKAGES) >/dev/null 2>&1 || \
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(RADIO_PACKAGES))

clean: ## remove the environment and all results
	rm -rf $(VENV) runs
