#!/bin/sh
# With the newest of Python 3.13 and 3.12 that is here: every source compiles without a warning, every package has a
# wheel of its pinned version, and the fast tests of files and data that need no torch pass. The others are not run
# there, since torch for these versions takes gigabytes; by hand:
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
        folder=$(mktemp -d)
        trap 'rm -rf "$folder"' EXIT
        "$python" -m pip install -qq --disable-pip-version-check --dry-run --ignore-installed \
            --target "$folder" --only-binary :all: -c infra/constraints.txt -e ".[dev]"
        "$python" -m venv "$folder/venv"
        "$python" -c 'import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
packages = project["dependencies"] + project["optional-dependencies"]["dev"]
print(*(package for package in packages if not package.startswith(("torch", "timm"))), sep="\n")' > "$folder/packages"
        "$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check -c infra/constraints.txt \
            -r "$folder/packages"
        OMP_NUM_THREADS=1 "$folder/venv/bin/python" -m pytest -n 2 --dist loadfile tests/pipeline tests/jobs/training \
            -m "not ray and not slow and not long and not machines and not storm and not cluster"
        exit 0
    fi
done
echo "skipped: there is no Python 3.12 or 3.13 here"
