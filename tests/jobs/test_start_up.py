"""`--help`, a misspelt recipe and `--dry-run` of every verb answer without the libraries that take long to import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.surroundings import INSTALL, SUBMITTED_JOB

ROOT = Path(__file__).resolve().parents[2]
VERBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if '\nif __name__ == "__main__"' in path.read_text())

# Each takes a quarter of a second or more. pandas comes with ray.data, sympy with torch._dynamo, and huggingface_hub
# with timm.
SLOW = ("huggingface_hub", "matplotlib", "mlflow", "pandas", "ray", "scipy", "sympy", "timm", "torch._dynamo",
        "torch._inductor", "torchvision", "webdataset")

# All in one process, which imports torch once: (verb, arguments) -> exit code and slow modules that are loaded by then.
CALLS = """
import json, runpy, sys
verbs, slow = json.loads(sys.argv[1])
for verb in verbs:
    for arguments in (["--help"], ["--recipe", "no_such_recipe"], ["--recipe", "demo", "--dry-run"]):
        sys.argv = [verb, *arguments]
        try:
            runpy.run_module(f"jobs.{verb}", run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        loaded = [name for name in slow if name in sys.modules]
        print("\\nCALL", json.dumps([verb, arguments[-1], code, loaded]))
"""


@pytest.fixture(scope="module")
def calls() -> list[tuple[str, str, int, list[str]]]:
    done = subprocess.run([sys.executable, "-c", CALLS, json.dumps([VERBS, SLOW])], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line.removeprefix("CALL ")) for line in done.stdout.splitlines() if line.startswith("CALL ")]


def test_every_verb_is_called(calls):
    assert len(VERBS) > 12
    assert [verb for verb, argument, _, _ in calls if argument == "--help"] == VERBS


def test_no_slow_library_is_imported(calls):
    assert [(verb, argument, loaded) for verb, argument, _, loaded in calls if loaded] == []


def test_the_calls_end_as_they_should(calls):
    assert {code for _, argument, code, _ in calls if argument == "--help"} == {0}
    assert {code for _, argument, code, _ in calls if argument == "no_such_recipe"} == {2}
    assert {verb: code for verb, argument, code, _ in calls if argument == "--dry-run" and code} == dict.fromkeys(
        ("convert_checkpoint", "estimate", "longest_video", "profile", "reproduce"), 2)     # no such flag, or no recipe


@pytest.mark.parametrize("verb", ["predict", "evaluate", "cache_queries", "train_stage_one", "convert_checkpoint"])
def test_the_first_line_comes_before_the_imports_that_take_long(verb):
    """-X importtime writes a line for each module, in the order of their import."""
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", f"jobs.{verb}", "--recipe", "no_such_recipe"],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    imported = [line.rpartition("|")[2].strip() for line in lines]
    first = lines.index(f"jobs.{verb}: loading the libraries")
    assert {"torch", "numpy"} <= set(imported)
    assert not {"torch", "numpy", "pydantic", "tyro"} & set(imported[:first])
    assert first < len(lines) / 10


@pytest.mark.parametrize("arguments", [["--recipe", "demo"], ["--help"]])
def test_a_python_without_the_packages_names_the_environment_that_has_them(arguments):
    """-S leaves out what is installed, as the Python of a shell without the environment does."""
    done = subprocess.run([sys.executable, "-S", "-m", "jobs.predict", *arguments], cwd=ROOT, capture_output=True,
                          text=True, check=False, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {sys.executable} lacks packages that this project needs, such as PIL: ")
    assert ".venv/bin/activate)" in line


def test_a_job_on_a_host_without_the_packages_says_how_it_brings_them():
    """Its folder is a copy of the code and holds no environment."""
    done = subprocess.run([sys.executable, "-S", "-m", "jobs.predict"], cwd=ROOT, capture_output=True, text=True,
                          check=False, env={"PATH": os.environ["PATH"], SUBMITTED_JOB: "{}"})
    assert done.returncode == 2
    (error, last) = done.stderr.splitlines()
    assert "lacks the packages of PIL, av, " in error
    assert error.endswith(INSTALL)
    assert last == f"ended with exit code 2 (configuration): {error.removeprefix('error: ')}"


@pytest.mark.parametrize(("arguments", "last"), [
    (["--wrong"], "ended with exit code 2 (usage): "),
    (["--recipe", "no_such_recipe"], "ended with exit code 2 (configuration): ")])
def test_a_job_with_a_wrong_command_line_gives_its_exit_code_last(arguments, last):
    done = subprocess.run([sys.executable, "-m", "jobs.make_shards", *arguments], cwd=ROOT, capture_output=True,
                          text=True, check=False, env=os.environ | {SUBMITTED_JOB: "{}"})
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(last)


@pytest.mark.parametrize(("arguments", "taken_apart"), [
    (["-c", "pass"], True), (["-m", "jobs.verify_shards", "--help"], False),
    (["-m", "jobs.profile", "--wrong"], False)])
def test_an_answer_does_not_wait_until_the_modules_are_taken_apart(arguments, taken_apart, tmp_path):
    """It takes torch half a second."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nclass Last:\n    def __del__(self, write=os.write):\n        write(2, b'taken apart')\n"
        "sys.last = Last()\n")
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert ("taken apart" in done.stderr) == taken_apart
    assert done.stdout or done.stderr
