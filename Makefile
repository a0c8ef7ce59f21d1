# Two commands for newcomers: `make demo` and `make test`. Both make .venv first when it is missing or out of date.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
RUN    := OMP_NUM_THREADS=1 RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 MLFLOW_DISABLE_TELEMETRY=true $(VENV)/bin/python
SPREAD := -n 2 --dist loadfile --no-loadscope-reorder
STAMP  := $(VENV)/.installed

.PHONY: demo test test-fast lint format clean

demo: $(STAMP)
	$(RUN) -m jobs.demo

test: $(STAMP)
	$(RUN) -m pytest $(SPREAD)

test-fast: $(STAMP)
	$(RUN) -m pytest $(SPREAD) -m "not ray and not slow"

lint: $(STAMP)
	$(VENV)/bin/ruff check .

$(STAMP): pyproject.toml infra/constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c infra/constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache
