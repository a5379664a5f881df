# The two commands of this project. Each makes its own virtual environment in .venv and installs what it needs.
#   make demo [ARGS=--once]    a simulated town, read and billed
#   make test [ARGS='-k name'] style, types, import contracts, tests
# And for tests against other people's implementations, each in an environment of its own:
#   make peers                 PyPI dlt645, python-dlt645, pyModbusTCP, modbus-tk, gurux_dlms and PySAM into .venv-peers
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers

.PHONY: help demo test lint peers clean
.DEFAULT_GOAL := help

help:
	@sed -n '2,5p' Makefile | sed 's/^# *//'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run
	$(BIN)/headend demo $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -n 2 $(if $(SLOW),,-m 'not slow') $(ARGS)

peers: $(PEERS)/.dlt645-3.2.0 $(PEERS)/.python-dlt645-0.1.4
peers: $(PEERS)/.pymodbustcp-0.3.1 $(PEERS)/.modbus-tk-1.1.5
peers: $(PEERS)/.gurux-dlms-1.0.203 $(PEERS)/.pysam-7.1.1

# Both import as dlt645, so neither can live with the other.
$(PEERS)/.dlt645-3.2.0:
	$(PYTHON) -m venv $(PEERS)/dlt645
	$(PEERS)/dlt645/bin/python -m pip install --quiet dlt645==3.2.0
	@touch $@

$(PEERS)/.python-dlt645-0.1.4:
	$(PYTHON) -m venv $(PEERS)/python-dlt645
	$(PEERS)/python-dlt645/bin/python -m pip install --quiet python-dlt645==0.1.4 'pyserial>=3.5,<4'
	@touch $@

$(PEERS)/.pymodbustcp-0.3.1:
	$(PYTHON) -m venv $(PEERS)/pymodbustcp
	$(PEERS)/pymodbustcp/bin/python -m pip install --quiet pyModbusTCP==0.3.1
	@touch $@

$(PEERS)/.modbus-tk-1.1.5:
	$(PYTHON) -m venv $(PEERS)/modbus-tk
	$(PEERS)/modbus-tk/bin/python -m pip install --quiet modbus-tk==1.1.5 'pyserial>=3.5,<4'
	@touch $@

# GPL-2.0: it runs as a program of its own, and nothing here imports it or ships it.
$(PEERS)/.gurux-dlms-1.0.203:
	$(PYTHON) -m venv $(PEERS)/gurux-dlms
	$(PEERS)/gurux-dlms/bin/python -m pip install --quiet gurux_dlms==1.0.203
	@touch $@

# BSD-3-Clause; also the extra `oracle`. In an environment of its own as it takes 225 MB.
$(PEERS)/.pysam-7.1.1:
	$(PYTHON) -m venv $(PEERS)/pysam
	$(PEERS)/pysam/bin/python -m pip install --quiet NREL-PySAM==7.1.1.post1
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS)
