#!/bin/sh
# Makes a virtual environment with every package at its pinned version, or completes one:
#     make_environment.sh FOLDER [PYTHON]
set -eu
folder=$1
chosen=${2:-}
# Settings of the user's other environments: they would break Python, or install the packages elsewhere.
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON
export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0

stop() {
    echo "error: $1" >&2
    exit 2
}

# A command of this name may exist and still not run (pyenv), or be too old.
fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# Whether the environment has the Python that was chosen.
chosen_is_there() { [ -z "$chosen" ] || [ "$("$chosen" -VV 2>&1)" = "$("$folder/bin/python" -VV 2>&1)" ]; }

if ! { fits "$folder/bin/python" && chosen_is_there && "$folder/bin/python" -m pip --version >/dev/null 2>&1; }; then
    if [ -n "$chosen" ]; then
        set -- "$chosen"
    else
        set -- python3.11 python3.12 python3.13 python3
    fi
    python=
    for candidate; do
        if fits "$candidate"; then
            python=$candidate
            break
        fi
    done
    [ -n "$python" ] || stop "Python 3.11 or newer is needed, and none of these is: $*. Install one and name it: \
make PYTHON=/path/to/python3.11"
    # What is there is half made, or of a Python that is gone or too old; under another name it may be anything.
    if [ "${folder##*/}" != .venv ] && [ -n "$(ls -A "$folder" 2>/dev/null)" ] && [ ! -f "$folder/pyvenv.cfg" ]; then
        stop "$folder is no virtual environment and is not empty; name another folder: make VENV=/path/to/venv"
    fi
    rm -rf "$folder" 2>/dev/null && mkdir -p "$folder" 2>/dev/null ||
        stop "$folder cannot be made here; name a folder that can be: make VENV=/path/to/venv"
    if ! "$python" -m venv "$folder"; then
        rm -rf "$folder"
        stop "$python cannot make a virtual environment in $folder; on Debian and Ubuntu install its venv package, \
e.g. python3.11-venv"
    fi
fi
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check -c infra/constraints.txt -e ".[dev]"
