"""Surroundings that change nothing: a verb makes the same bytes under each of them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobs.config import to_json
from pipeline.files import sha256_of
from tests.machines.verbs import CAN_MOUNT, HERE, ROOT, content, refuse_failure, start, verb
from tests.runs import EVERYTHING

NOBODY = "http://127.0.0.1:9"       # a port nothing listens on

# What other programs and other habits leave in the environment.
VARIABLES = {
    "threads and GPUs": {"OMP_NUM_THREADS": "", "CUDA_VISIBLE_DEVICES": "0,1,x"},
    "no threads": {"OMP_NUM_THREADS": "0", "CUDA_VISIBLE_DEVICES": ""},
    "threads that are no number": {"OMP_NUM_THREADS": "many", "CUDA_VISIBLE_DEVICES": "-1"},
    "another launcher": {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "192.0.2.1",
                         "MASTER_PORT": "1"},
    "a batch system": {"SLURM_JOB_ID": "7", "SLURM_PROCID": "3", "SLURM_NTASKS": "8"},
    "another run of MLflow": {"MLFLOW_RUN_ID": "abc", "MLFLOW_EXPERIMENT_NAME": "x", "MLFLOW_EXPERIMENT_ID": "9"},
    "conda": {"CONDA_PREFIX": "/nowhere", "CONDA_DEFAULT_ENV": "base"},
    "a proxy that is gone": dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "ALL_PROXY"), NOBODY),
    "pictures on a screen": {"MPLBACKEND": "QtAgg", "MPLCONFIGDIR": "/proc/nowhere", "DISPLAY": ":99"},
    "Python": {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "7", "PYTHONUTF8": "0", "PYTHONWARNINGS": "error",
               "PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    "the plain locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "the locale of POSIX": {"LC_ALL": "POSIX"},
    "a locale that is not installed": {"LANG": "tr_TR.UTF-8", "LC_ALL": "xx_YY.ISO-8859-7"},
    "an odd terminal": {"COLUMNS": "0", "LINES": "x", "TERM": "nonsense", "TZ": "No/Where"},
}
TOGETHER = {name: value for values in VARIABLES.values() for name, value in values.items()}

# Lines before the command, in the same shell.
SHELLS = {
    "files for this user alone": "umask 077;", "files for everybody": "umask 000;",
    "one processor": "exec taskset -c 0",
    "no standard input": "exec <&-;", "few open files": "ulimit -n 40;", "a small stack": "ulimit -s 256;",
    "a user whom no file lists": "export HOME=/; exec unshare --user --map-user=12345 --map-group=12345",
    "a host without a name": "exec unshare --uts sh -c 'hostname no-such-host.example; \"$@\"' _",
}
MOUNTS = {
    "programs must not run in the temporary folder": "mount -t tmpfs -o noexec,size=400m none {0}; export TMPDIR={0};",
    "a home folder that is full": "mount -t tmpfs -o size=64k none {0}; head -c 100000 /dev/zero > {0}/x 2>/dev/null;"
                                  " export HOME={0};",
    "a home folder that is read-only": "mount -t tmpfs -o ro none {0}; export HOME={0};",
    "a small temporary folder": "mount -t tmpfs -o size=40m none {0}; export TMPDIR={0};",
    "a megabyte of shared memory": "mount -t tmpfs -o size=1m none /dev/shm;",
    "shared memory that is read-only": "mount -t tmpfs -o ro none /dev/shm;",
    "no loopback of IPv6": "unshare --net sh -c 'ip link set lo up; "
                           "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; \"$@\"' _",
}
needs_mounts = pytest.mark.skipif(not CAN_MOUNT, reason="needs root and mount namespaces")


def scores(said: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in said.items() if isinstance(value, float) and name != "frames_per_second"}


def under(shell: str, folder: Path) -> str:
    """A line that makes shards after what `shell` prepares, with mounts that only it sees."""
    line = f"{shell.format(folder.parent / 'mounted')} {verb('make_shards', HERE, f'folder={folder}')}"
    if shell not in MOUNTS.values():
        return line
    (folder.parent / "mounted").mkdir()
    return f"exec unshare --mount bash -c {shlex.quote(line)}"


def test_all_variables_together_change_nothing(plain, tmp_path):
    result = start(verb("make_shards", HERE, f"folder={tmp_path / 'run'}"), **TOGETHER)
    refuse_failure(result)
    assert content(tmp_path / "run") == plain


@pytest.mark.machines
@pytest.mark.slow
@pytest.mark.parametrize("variables", VARIABLES.values(), ids=VARIABLES)
def test_each_alone_changes_nothing(plain, tmp_path, variables):
    result = start(verb("make_shards", HERE, f"folder={tmp_path / 'run'}"), **variables)
    refuse_failure(result)
    assert content(tmp_path / "run") == plain


@pytest.mark.machines
@pytest.mark.slow
@pytest.mark.parametrize("shell", [*SHELLS.values(), *(pytest.param(line, marks=needs_mounts)
                                                       for line in MOUNTS.values())], ids=[*SHELLS, *MOUNTS])
def test_limits_users_and_file_systems_change_nothing(plain, tmp_path, shell):
    result = start(under(shell, tmp_path / "run"))
    refuse_failure(result)
    assert content(tmp_path / "run") == plain


@pytest.mark.machines
@pytest.mark.slow
@pytest.mark.parametrize("flags", ["-I", "-O", "-OO", "-W error", "-X utf8=0", "-P"])
def test_options_of_python_change_nothing(plain, tmp_path, flags):
    result = start(verb("make_shards", HERE, f"folder={tmp_path / 'run'}", flags=flags))
    refuse_failure(result)
    assert "Warning" not in result.stderr
    assert content(tmp_path / "run") == plain


@pytest.mark.ray
@pytest.mark.machines
@pytest.mark.slow
@needs_mounts
@pytest.mark.parametrize("name", MOUNTS)
def test_ray_works_on_such_file_systems_too(plain, tmp_path, name):
    result = start(under(MOUNTS[name], tmp_path / "run").replace(HERE, "cluster.local_cpus=2"))
    refuse_failure(result)
    assert content(tmp_path / "run") == plain


@pytest.mark.ray
@pytest.mark.machines
@pytest.mark.slow
@pytest.mark.parametrize("name", ["few open files", "a user whom no file lists", "a host without a name"])
def test_ray_works_under_such_limits_and_users_too(plain, tmp_path, name):
    shell = SHELLS[name].replace("-n 40", "-n 200")
    result = start(under(shell, tmp_path / "run").replace(HERE, "cluster.local_cpus=2"))
    refuse_failure(result)
    assert content(tmp_path / "run") == plain


@pytest.mark.ray
@pytest.mark.machines
@pytest.mark.slow
def test_training_and_scores_on_ray_are_those_of_a_plain_environment(finished_run, tmp_path):
    recipe = finished_run.copy(tmp_path / "run")
    expected = sha256_of(recipe.head_folder / "model.safetensors")
    shutil.rmtree(recipe.run_folder / "stage_two")
    settings = f"folder={tmp_path / 'run'}", f"inference.panoptic={json.dumps(to_json(EVERYTHING))}"
    refuse_failure(start(verb("train_stage_two", *settings), **TOGETHER))
    assert sha256_of(recipe.head_folder / "model.safetensors") == expected
    result = start(verb("evaluate", *settings, "evaluation.mode=offline"), **TOGETHER)
    refuse_failure(result)
    ours = scores(json.loads(result.stdout.splitlines()[-1]))
    assert ours == scores(finished_run.said["offline"])
    assert ours


@pytest.mark.ray
@pytest.mark.machines
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("uv"), reason="needs uv")
def test_uv_run_of_a_verb(plain, tmp_path):
    line = verb("make_shards", f"folder={tmp_path / 'run'}")
    python = line.split()[0]
    result = start(f"uv run --no-project --offline --python {python} {line.replace(python, 'python', 1)}")
    refuse_failure(result)
    assert content(tmp_path / "run") == plain


@pytest.mark.skipif(not CAN_MOUNT, reason="needs root and network namespaces")
@pytest.mark.ray
@pytest.mark.machines
@pytest.mark.slow
def test_without_any_loopback_one_line_says_so(tmp_path):
    result = start(f"unshare --net {verb('make_shards', f'folder={tmp_path}/run')}")
    assert result.returncode == 2
    assert "127.0.0.1, which does not answer" in result.stderr.splitlines()[-1]


@pytest.mark.ray
@pytest.mark.machines
@pytest.mark.slow
def test_files_that_may_not_grow_are_named_before_ray_waits_for_ever(tmp_path):
    result = start(f"ulimit -f 2000; {verb('make_shards', f'folder={tmp_path}/run')}")
    assert result.returncode == 2
    assert "ulimit -a" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_conditions_are_made():
    """The tests above prove nothing where the shell does not do what they ask of it."""
    made = subprocess.run(["bash", "-c", f"{SHELLS['a user whom no file lists']} id -un"], capture_output=True,
                          text=True, check=False)
    assert os.geteuid() != 0 or "cannot find name for user ID 12345" in made.stderr
