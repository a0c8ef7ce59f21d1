# Two commands for newcomers: `make demo` and `make test`. Both make .venv first when it is missing or out of date.
PYTHON ?=                  # the Python to use; by default the first of python3.11 to 3.13 and python3 that is new enough
VENV   := .venv
RUN    := OMP_NUM_THREADS=1 RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 MLFLOW_DISABLE_TELEMETRY=true $(VENV)/bin/python
SPREAD := -n 2 --dist loadfile --no-loadscope-reorder
STAMP  := $(VENV)/.installed

unexport PYTHONHOME

# An environment whose Python is gone is made anew, and one of a clone that was moved or copied is installed again.
ALIVE  := $(shell test "$$(cat $(STAMP) 2>/dev/null)" = "$$(pwd -P)" && env -u PYTHONHOME $(VENV)/bin/python -c '' \
            2>/dev/null || rm -f $(STAMP))

.PHONY: demo test test-long cluster storm storm-short test-fast lint format clean

demo: $(STAMP)
	$(RUN) -m jobs.demo

test: $(STAMP)
	$(RUN) -m pytest $(SPREAD) -m "not long and not storm and not cluster"

# The tests of more than half a minute each: whole jobs, sweeps, clusters that hang, real videos.
test-long: $(STAMP)
	$(RUN) -m pytest $(SPREAD) -m "long and not storm and not cluster"

# What takes long beside it: verbs that are killed, disks that fill up, trackers that fail.
storm: $(STAMP)
	$(RUN) -m pytest $(SPREAD) -m storm

# Clusters of several hosts on this machine, each with a network of its own. It needs root.
cluster: $(STAMP)
	$(RUN) -m pytest -m cluster

# A bounded selection of the storm, the same trials every time.
storm-short: $(STAMP)
	$(RUN) -m tests.storm --short

test-fast: $(STAMP)
	$(RUN) -m pytest $(SPREAD) -m "not ray and not slow and not cluster"

lint: $(STAMP)
	$(VENV)/bin/ruff check .

$(STAMP): pyproject.toml infra/constraints.txt infra/make_environment.sh
	sh infra/make_environment.sh "$(VENV)" "$(PYTHON)"
	pwd -P > $@

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache
