"""The peak of a process is its own."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from jobs.memory import peak_memory


def test_a_process_that_is_started_does_not_begin_with_the_peak_of_its_parent():
    held = bytearray(b"1") * 2**30      # written, so that it is resident
    assert peak_memory() > 1
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(peak_memory).result() < 0.9
    assert len(held) == 2**30
