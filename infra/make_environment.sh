#!/bin/sh
# Makes a virtual environment with every package at its pinned version, or completes one: make_environment.sh FOLDER [PYTHON]
set -eu
folder=$1
chosen=${2:-}
candidates=${chosen:-python3.11 python3.12 python3.13 python3}

# A command of this name may exist and still not run (pyenv), or be too old.
fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

if ! { fits "$folder/bin/python" && "$folder/bin/python" -m pip --version >/dev/null 2>&1; }; then
    python=
    for candidate in $candidates; do
        if fits "$candidate"; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "error: Python 3.11 or newer is needed, and none of these is: $candidates." \
             "Install one and name it: make PYTHON=/path/to/python3.11" >&2
        exit 2
    fi
    rm -rf "$folder"       # half made, or of a Python that is gone or too old
    if ! "$python" -m venv "$folder"; then
        rm -rf "$folder"
        echo "error: $python cannot make a virtual environment in $folder; on Debian and Ubuntu install its venv" \
             "package, e.g. python3.11-venv" >&2
        exit 2
    fi
fi
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check -c infra/constraints.txt -e ".[dev]"
