"""What other processes print is shown, except Ray's own remarks that have a known cause."""

from __future__ import annotations

from jobs.ray_lines import Sieve

TRACEBACK = ["Failed to stop PlacementGroupCleaner gracefully.", "Traceback (most recent call last):", '  File "x.py"',
             "ray.exceptions.GetTimeoutError: Get timed out: some object(s) not ready."]


def test_a_traceback_of_known_cause_is_left_out_from_its_first_line_to_its_last():
    assert Sieve().kept(1, ["before", *TRACEBACK, "after"]) == ["before", "after"]


def test_it_may_come_in_pieces_and_between_lines_of_other_processes():
    sieve = Sieve()
    assert sieve.kept("controller", TRACEBACK[:2]) == []
    assert sieve.kept("worker", ["step 1", "Traceback (most recent call last):"]) == [
        "step 1", "Traceback (most recent call last):"]
    assert sieve.kept("controller", TRACEBACK[2:]) == []
    assert sieve.kept("controller", ["after"]) == ["after"]


def test_other_tracebacks_and_actors_are_shown():
    lines = ["Traceback (most recent call last):", "GetTimeoutError", "Actor with class name: 'Mine' died"]
    assert Sieve().kept(1, lines) == lines
