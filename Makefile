# Set-up, demo, tests and checks of a checkout. Every target makes its environment first.
#
#   make demo        set up, then run a campaign on ethanol; run it again to resume it
#   make test        set up, then run the tests (not those marked slow)
#   make test-slow   the tests marked slow
#   make test-slurm  all tests on a real Slurm: the tests start it and end it; its programs must be there
#                    (Debian: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge)
#   make check       formatting, lint, types, import rules
#   make format      put the code into its format
#   make docs        rewrite the generated pages of docs/ and db/schema.sql
#   make clean       remove the environment and caches; campaigns in runs/ stay
#
# Variables: PYTHON (python3), VENV (.venv), JOBS (2, tests at the same time), CAMPAIGN.

PYTHON   ?= python3
VENV     ?= .venv
JOBS     ?= 2
CAMPAIGN ?= configs/ethanol.yaml

BIN   := $(VENV)/bin
READY := $(VENV)/.ready
PIP   := $(BIN)/python -m pip --quiet --disable-pip-version-check install -c constraints.txt
CODE  := alloop db tasks tests benchmarks

# One thread a process: the demo and the tests run several processes at once.
export OMP_NUM_THREADS := 1

.PHONY: demo test test-slow test-slurm check format docs clean setup

setup: $(READY)

# Done again when a dependency changes; an interrupted set-up is finished by the next make.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "alloop needs Python 3.11 or newer; say which: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "set-up 1/3: environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "set-up 2/3: PyTorch (200 MB, or some GB where it comes with CUDA)"
	@$(PIP) $$(grep '^torch==' constraints.txt)
	@echo "set-up 3/3: alloop and what it builds on (about 300 MB)"
	@$(PIP) --editable '.[dev,smiles]'
	@touch $@

# 3 (budget spent), 4 (stalled) and 5 (paused) are verdicts of a campaign, not failures of make.
demo: $(READY)
	@$(BIN)/alloop start $(CAMPAIGN); code=$$?; \
	case $$code in 0|3|4|5) ;; *) exit $$code ;; esac
	@echo
	@echo "Look at it:    $(BIN)/alloop status -c $(CAMPAIGN)"
	@echo "Ask it:        $(BIN)/alloop query learning_curve -c $(CAMPAIGN)"
	@echo "Go on with it: make demo"

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadscope --timeout 900

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow --timeout 3600

test-slurm: $(READY)
	$(BIN)/python -m pytest tests/cluster -rs --timeout 3600

check: $(READY)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

docs: $(READY)
	$(BIN)/python -m alloop.config.schema
	$(BIN)/python -m alloop.executors.sites.table
	$(BIN)/python -m alloop_db.documentation

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
