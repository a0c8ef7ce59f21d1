#!/bin/sh
# With the newest of Python 3.13 and 3.12 that is here: every source compiles without a warning, and every package has a
# wheel of its pinned version. The tests are not run there, since torch for these versions takes gigabytes; by hand:
#     make test VENV=.venv-3.13 PYTHON=python3.13
set -eu
versions=$HOME/.pyenv/versions
for python in python3.13 "$versions"/3.13.*/bin/python python3.12 "$versions"/3.12.*/bin/python; do
    if "$python" -c 'import pip' >/dev/null 2>&1; then
        "$python" --version
        "$python" -W error -c 'import pathlib
for folder in ("jobs", "model", "pipeline", "tests", "benchmarks"):
    for path in pathlib.Path(folder).rglob("*.py"):
        compile(path.read_bytes(), str(path), "exec")'
        "$python" -m pip install -qq --disable-pip-version-check --dry-run --ignore-installed \
            --target "${TMPDIR:-/tmp}" --only-binary :all: -c infra/constraints.txt -e ".[dev]"
        exit 0
    fi
done
echo "skipped: there is no Python 3.12 or 3.13 here"
