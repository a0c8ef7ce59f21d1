# Two commands for newcomers: `make demo` and `make test`. Both make .venv first when it is missing or out of date.
PYTHON ?=                  # the Python to use; by default the first of python3.11 to 3.13 and python3 that is new enough
VENV   := .venv
override VENV := $(patsubst ~/%,$(HOME)/%,$(VENV))
RUN    := OMP_NUM_THREADS=1 RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 MLFLOW_DISABLE_TELEMETRY=true "$(VENV)/bin/python"
SPREAD := -n 2 --dist loadfile --no-loadscope-reorder
STAMP  := $(VENV)/.installed

unexport PYTHONHOME

# Make takes such a name apart: the environment would be made in one folder and looked for in another.
ifneq ($(words $(VENV))$(foreach mark,; : %,$(findstring $(mark),$(VENV))),1  )
    $(error VENV="$(VENV)" must name one folder, without blanks and ; : %: make VENV=/path/to/venv)
endif
ifeq ($(wildcard infra/make_environment.sh),)
    $(error start make in the folder of the clone, or name that folder: make -C FOLDER)
endif

# What an installation depends on. The times of files are not asked, since clocks are set: an environment is made anew
# where its Python is gone or another one, and installed again where the clone was moved, copied or brought up to date.
STATE  := pwd -P; cat pyproject.toml infra/constraints.txt infra/make_environment.sh | cksum; \
            env -u PYTHONHOME "$(VENV)/bin/python" -VV 2>&1 || :
ALIVE  := $(shell test "$$(cat "$(STAMP)" 2>/dev/null)" = "$$($(STATE))" && { test -z "$(PYTHON)" || \
            test "$$("$(PYTHON)" -VV 2>&1)" = "$$("$(VENV)/bin/python" -VV 2>&1)"; } || rm -f "$(STAMP)")

.PHONY: demo test test-long machines cluster storm storm-short test-fast lint format clean

demo: $(STAMP)
	$(RUN) -m jobs.demo

test: $(STAMP)
	$(RUN) -m pytest $(SPREAD) -m "not long and not machines and not storm and not cluster"

# The tests that take longer: whole jobs, sweeps, clusters that hang, real videos.
test-long: $(STAMP)
	$(RUN) -m pytest $(SPREAD) -m "long and not machines and not storm and not cluster"

# Conditions of other people's machines that take longer: every verb under each of them.
machines: $(STAMP)
	$(RUN) -m pytest $(SPREAD) -m machines

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
	$(RUN) -m pytest $(SPREAD) -m "not ray and not slow and not long and not storm and not cluster and not machines"

lint: $(STAMP)
	"$(VENV)/bin/ruff" check .

$(STAMP):
	sh infra/make_environment.sh "$(VENV)" "$(PYTHON)"
	{ $(STATE); } > "$@"

# Another folder that VENV names is removed only if it is an environment.
clean:
	test ".venv" = "$(VENV)" || test -f "$(VENV)/pyvenv.cfg" || test ! -e "$(VENV)" || { \
	    echo 'error: $(VENV) is no virtual environment; remove it yourself' >&2; exit 2; }
	rm -rf "$(VENV)" runs .pytest_cache .ruff_cache
