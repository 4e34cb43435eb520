# One command each, the same for people and CI. Each makes the environment if it is not there.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test check bench chaos fuzz setup clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    run the order example on three nodes and kill one in the middle"
	@echo "make test    all tests, against a real nats-server"
	@echo "make check   format, lint, types, layers"
	@echo "make bench   speed, as a table"
	@echo "make chaos   the kill tests in their long form"
	@echo "make fuzz    generated programs and hostile bytes, in their long form"

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	@$(BIN)/python -m examples.orders.demo

# Two workers: most tests wait for processes and servers most of the time.
test: $(STAMP)
	@$(BIN)/python -m pytest -n 2

check: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# The long form of the kill tests: ten kills each, every event ten times over.
chaos: $(STAMP)
	@MESH_CHAOS=1 $(BIN)/python -m pytest tests/test_kill_at_every_event.py tests/test_failover.py tests/test_server_death.py

# Thousands of generated programs, minutes of hostile bytes (docs/fuzzing.md).
fuzz: $(STAMP)
	@MESH_FUZZ=nightly $(BIN)/python -m pytest tests/fuzz -n 2 --hypothesis-show-statistics

bench: $(STAMP)
	@$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .mesh
