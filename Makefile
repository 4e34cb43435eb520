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
	@echo "make bench   speed: a table, kept in bench/results/, and the tables and plots of docs/"
	@echo "make chaos   break everything under load, on one server and on three; MINUTES=5 ROUNDS=2"
	@echo "make fuzz    generated programs and hostile bytes, in their long form"

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"moonmesh needs Python 3.11 or newer, $(PYTHON) is %d.%d; name another one: make PYTHON=python3.12" \
		% sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	@$(BIN)/python -m examples.orders.demo

# Most tests wait for processes and servers most of the time. A worker that dies ends the run: pytest-xdist would wait for
# the rest of its tests for ever. On two processors WORKERS=3 takes a fifth less and asks more of every time limit.
WORKERS ?= 2
test: $(STAMP)
	@$(BIN)/python -m pytest -n $(WORKERS) --max-worker-restart 0

check: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Everything that can break is broken, on one server and on three, with a new seed each time (docs/chaos.md); then the
# long form of the kill tests: every planted fault, ten kills each, every event ten times over.
MINUTES ?= 5
ROUNDS  ?= 2
chaos: $(STAMP)
	@for round in $$(seq $(ROUNDS)); do for servers in 1 3; do \
		$(BIN)/python -m tests.chaos --minutes $(MINUTES) --servers $$servers || exit 1; \
	done; done
	@MESH_CHAOS=1 $(BIN)/python -m pytest tests/test_chaos_faults.py tests/test_kill_at_every_event.py \
		tests/test_failover.py tests/test_server_death.py

# Thousands of generated programs, minutes of hostile bytes (docs/fuzzing.md).
fuzz: $(STAMP)
	@MESH_FUZZ=nightly $(BIN)/python -m pytest tests/fuzz -n 2 --hypothesis-show-statistics

bench: $(STAMP)
	@$(BIN)/python -m bench --save
	@$(BIN)/python -m bench report

clean:
	rm -rf $(VENV) .mesh
