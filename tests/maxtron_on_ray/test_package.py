"""The wheel, unpacked into an empty folder, gives the Python call and the command beside foreign packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import maxtron_on_ray
from maxtron_on_ray.command import completion, verbs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder of packages that holds the wheel alone; its requirements are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("maxtron_on_ray", "model", "pipeline", "jobs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source],
                   check=True, timeout=300)
    [wheel] = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--target", folder / "site", wheel], check=True,
                   timeout=300)
    return folder / "site"


def run(installed: Path, *words: str, cwd: Path, path: str = "") -> subprocess.CompletedProcess:
    """A command whose Python finds the packages of the wheel first; path: folders before them."""
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=240, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path, str(installed))))})


def command(installed: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    return run(installed, sys.executable, str(installed / "bin" / "maxtron"), *arguments, **options)


@pytest.fixture
def foreign(tmp_path) -> Path:
    """A folder with packages of the same names that belong to somebody else."""
    for name in ("jobs", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('foreign code ran')\n")
    return tmp_path


@pytest.mark.slow
def test_the_wheel_has_every_file_that_is_read_and_says_that_it_is_typed(installed):
    assert (installed / "maxtron_on_ray" / "py.typed").is_file()
    for path in ("jobs/reporting/page.html", "jobs/reproducing/papers.toml"):
        assert (installed / path).read_text() == (ROOT / path).read_text()


@pytest.mark.slow
def test_the_command_runs_a_verb_in_a_folder_with_foreign_packages(installed, foreign):
    done = command(installed, "evaluate", "--recipe", "demo", "--dry-run", cwd=foreign)
    assert done.returncode == 0, done.stderr
    assert '"name": "demo"' in done.stdout
    assert command(installed, "evaluate", "--recipe", "no_such", cwd=foreign).returncode == 2


@pytest.mark.slow
def test_the_call_is_imported_from_the_wheel(installed, tmp_path):
    done = run(installed, sys.executable, "-P", "-c", "from maxtron_on_ray import load_system, Recipe\n"
               "import jobs; print(load_system.__module__, jobs.__file__)", cwd=tmp_path)
    assert done.stdout.split() == ["jobs.models", str(installed / "jobs" / "__init__.py")], done.stderr


@pytest.mark.slow
def test_a_foreign_package_that_python_finds_first_is_named(installed, foreign, tmp_path):
    done = run(installed, sys.executable, "-c", "import maxtron_on_ray", cwd=foreign)
    assert f"Python finds {foreign / 'jobs' / '__init__.py'} under the name `jobs`" in done.stderr
    assert "Start Python in another folder" in done.stderr
    assert "foreign code ran" not in done.stderr


def test_every_public_name_is_there():
    for name in maxtron_on_ray.__all__:
        assert getattr(maxtron_on_ray, name) is not None
    assert set(maxtron_on_ray.__all__) <= set(dir(maxtron_on_ray))
    with pytest.raises(AttributeError, match="it has ClassTable, InferenceConfig"):
        maxtron_on_ray.load_sytem  # noqa: B018


def test_the_command_lists_verbs_and_names_the_nearest(tmp_path):
    words = [sys.executable, "-m", "maxtron_on_ray.command"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for verb in ("evaluate", "predict", "report", "make_shards"):
        assert f"  {verb} " in listed
    wrong = subprocess.run([*words, "evalute"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "did you mean evaluate" in wrong.stderr


def test_bash_completes_verbs_recipes_and_flags(tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    script = completion(verbs()) + """
complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _maxtron; echo "${COMPREPLY[@]}"; }
complete_words maxtron eval; complete_words maxtron predict --recipe synthetic_h; complete_words maxtron predict --s"""
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["evaluate", "synthetic_hard", "--set --strict"]
