"""Whether a process runs is known from its number, and told from a later process of the same number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pipeline import processes
from pipeline.processes import is_alive, machine, start_of


def test_a_process_is_alive_until_it_is_killed_even_if_nobody_waits_for_it():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        start = start_of(child.pid)
        assert is_alive(child.pid, start=start)
        assert is_alive(child.pid)
        assert not is_alive(child.pid, start="1")        # of an earlier process of this number
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(child.pid, start=start)
    finally:
        child.kill()
        child.communicate()
    assert not is_alive(child.pid)


def test_without_proc_the_number_alone_decides(monkeypatch):
    monkeypatch.setattr(processes, "_PROCESSES", Path("/nowhere"))
    assert is_alive(os.getpid(), start=start_of(os.getpid()))
    assert not is_alive(2**22 + 7)


def test_a_machine_is_the_same_for_all_its_processes():
    other = subprocess.run([sys.executable, "-c", "from pipeline.processes import machine; print(machine())"],
                           cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == machine()
    assert len(machine()) == 8
