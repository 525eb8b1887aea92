# SPDX-License-Identifier: Apache-2.0
# Two commands on a fresh machine with Python 3.11: `make demo` and `make test`. Each makes .venv
# and installs into it when it is missing or its requirements changed; otherwise it starts at once.
#
# Other interpreter: make PYTHON=/path/to/python3.11 ...    Other environment: make VENV=dir ...

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
EXTRAS ?= dev
# The first of these that is Python 3.11.
PYTHON ?= $(shell for p in python3.11 python3 python; do \
	  if "$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
	    command -v "$$p"; break; fi; done)
PY := $(VENV)/bin/python
# Installed when this file holds the hash of the requirements; a clock cannot fool it.
STAMP := $(VENV)/.installed
REQUIREMENTS_HASH = $$(cat setup.py constraints.txt | sha256sum | cut -c1-64)-$(EXTRAS)-$(CURDIR)

# protoc has its own environment: grpcio-tools 1.51.3 cannot be installed beside this protobuf.
PROTOC_VENV := .venv-protoc
PROTOC_STAMP := $(PROTOC_VENV)/.grpcio-tools-1.51.3

# Two test processes keep two cores busy; each imports TensorFlow once, and needs about 3 GB. A file
# of tests stays in one of them, as its fixtures do.
TEST_WORKERS ?= 2
WORKERS = --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUNBUFFERED := 1

.PHONY: help demo test test-all install lint format protos clean

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: install  ## toy videos, training, evaluation, export, annotated video
	$(PY) -m object_detection_ext.tools.demo

test: lint  ## lint and the fast tests
	$(PY) -m pytest $(WORKERS) -m "not slow" --durations=15

test-all: lint  ## lint and all tests
	$(PY) -m pytest $(WORKERS) --durations=25

install:  ## .venv with the versions of constraints.txt
	@if [ "$$(cat $(STAMP) 2>/dev/null)" = "$(REQUIREMENTS_HASH)" ]; then exit 0; fi; \
	if [ ! -x $(PY) ]; then \
	  if [ -z "$(PYTHON)" ]; then \
	    echo "make: Python 3.11 is needed and neither python3.11 nor python3 is one." >&2; \
	    echo "make: on Debian 12: apt-get install python3.11 python3.11-venv;" \
	         "or: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; fi; \
	  if ! "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "make: $(PYTHON) cannot make an environment: module ensurepip is missing." >&2; \
	    echo "make: on Debian: apt-get install python3.11-venv" >&2; exit 1; fi; \
	  echo "make: making $(VENV) with $(PYTHON)"; \
	  "$(PYTHON)" -m venv $(VENV); fi; \
	echo "make: installing into $(VENV): about 2 GB, a few minutes"; \
	rm -f $(STAMP); \
	$(PY) -m pip install --progress-bar off -c constraints.txt -e ".[$(EXTRAS)]" \
	  | grep -vE '^(Requirement already|Looking in|Installing collected|Successfully installed|  )' || exit 1; \
	: 'The dependencies bring opencv-python too, which needs the libraries of a desktop.'; \
	: 'Written last, the headless build wins the folder that both install into.'; \
	$(PY) -m pip install --quiet --force-reinstall --no-deps -c constraints.txt \
	  opencv-python-headless; \
	$(PY) -m pip check; \
	echo "$(REQUIREMENTS_HASH)" > $(STAMP)

lint: install  ## ruff: rules and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: install  ## ruff: repairs what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

$(PROTOC_STAMP):
	$(PY) -m venv $(PROTOC_VENV)
	$(PROTOC_VENV)/bin/python -m pip install --quiet grpcio-tools==1.51.3 'setuptools<81'
	touch $@

protos: install  ## compiles protos/*.proto into object_detection_ext/protos
	@$(MAKE) --no-print-directory $(PROTOC_STAMP)
	$(PY) protos/generate.py --protoc $(PROTOC_VENV)/bin/python -m grpc_tools.protoc

clean:  ## removes environments, caches and the demo's results
	rm -rf .venv $(PROTOC_VENV) demo_output build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
