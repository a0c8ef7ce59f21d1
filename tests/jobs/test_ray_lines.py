"""What other processes print is shown, except remarks of Ray and torch that have a known cause."""

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


def test_that_an_address_has_no_name_is_left_out():
    line = "[W1130 14:56:50.880146518 socket.cpp:207] [c10d] The hostname of the client socket cannot be retrieved."
    assert Sieve().kept(1, [line, "step 1"]) == ["step 1"]


def test_other_tracebacks_and_actors_are_shown():
    lines = ["Traceback (most recent call last):", "GetTimeoutError", "Actor with class name: 'Mine' died"]
    assert Sieve().kept(1, lines) == lines
