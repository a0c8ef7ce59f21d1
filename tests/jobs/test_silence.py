"""A verb that prints nothing for a while tells that it is at work, and its process ends with its last line."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUIET = """
import sys, time
from jobs import silence
silence.LONGEST = 0.3
silence.break_silence("jobs.test")
time.sleep(1.5)
for _ in range(10):
    print("a line of its own", file=sys.stderr, flush=True)
    time.sleep(0.1)
silence.fall_silent()
print("last", file=sys.stderr, flush=True)
time.sleep(1)
"""


def test_a_line_comes_where_there_was_none_for_a_while():
    done = subprocess.run([sys.executable, "-c", QUIET], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    told = [line for line in lines if re.fullmatch(r"jobs\.test: still at work after \d+ s", line)]
    assert 2 <= len(told) <= 6
    assert lines[0] in told
    assert lines[-1] == "last"


def test_the_process_of_a_verb_ends_with_its_last_line():
    with subprocess.Popen([sys.executable, "-m", "jobs.evaluate", "--recipe", "no_such_recipe"], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        lines = [(time.monotonic(), line) for line in process.stdout]
    assert process.returncode == 2
    assert "there is no recipe 'no_such_recipe'" in "".join(line for _, line in lines)
    assert time.monotonic() - lines[-1][0] < 1
