# The two commands of the README. Each makes its own virtual environment with Python 3.11 or newer.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
DEMO_METHODS ?= zero-shot,finetune,coop,cgil,joint-prompts

.PHONY: demo test test-thorough test-all lint gate clean

demo: $(VENV)/installed
	$(VENV)/bin/bench run --protocol mini60-6x10 --methods $(DEMO_METHODS) --jobs 2

test: $(VENV)-test/installed
	$(VENV)-test/bin/python -m pytest -n 2 --dist worksteal

# the same promises for every method and every setting: what `make test` leaves out
test-thorough: $(VENV)-test/installed
	$(VENV)-test/bin/python -m pytest -n 2 --dist worksteal -m "thorough and not slow"

test-all: test test-thorough

# style and types, as pyproject.toml sets them
lint: $(VENV)-test/installed
	$(VENV)-test/bin/ruff check
	$(VENV)-test/bin/mypy

# a small run against the stored baseline: did anything move?
gate: $(VENV)-test/installed
	rm -rf $(VENV)-test/gate
	$(VENV)-test/bin/bench run --protocol mini60-6x10 --methods zero-shot,coop,cgil,finetune --seeds 0,1 \
		--limit-train 10 --limit-test 10 --out $(VENV)-test/gate
	$(VENV)-test/bin/bench gate $(VENV)-test/gate --baseline results/baselines/mini60-6x10-small.csv

$(VENV)/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable . --constraint constraints.txt
	touch $@

$(VENV)-test/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)-test
	$(VENV)-test/bin/python -m pip install --quiet --editable '.[lint,test]' --constraint constraints.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-test
