"""The peak of a process is its own."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from jobs.memory import PeakOfWork, peak_memory


def test_a_process_that_is_started_does_not_begin_with_the_peak_of_its_parent():
    held = bytearray(b"1") * 2**30      # written, so that it is resident
    assert peak_memory() > 1
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(peak_memory).result() < 0.9
    assert len(held) == 2**30


def test_work_adds_what_it_held_at_its_peak_and_what_was_before_does_not_count():
    earlier = bytearray(b"1") * 2**29
    del earlier
    peak = PeakOfWork()
    held = bytearray(b"1") * 2**28
    del held
    assert 0.24 < peak.added() < 0.4
    assert PeakOfWork().added() < 0.1
