# One command each, the same for people and CI. Each makes the environment if it is not there.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test check bench chaos setup clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    run the order example on three nodes and kill one in the middle"
	@echo "make test    all tests, against a real nats-server"
	@echo "make check   format, lint, types, layers"
	@echo "make bench   speed, as a table"

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	@$(BIN)/python -m examples.orders.demo

test: $(STAMP)
	@$(BIN)/python -m pytest

check: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP)
	@$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .mesh
