"""Clips made ahead by a thread: the same in the same order, a bounded number of them, with their errors."""

from __future__ import annotations

import threading
from contextlib import closing
from itertools import islice

import pytest

from pipeline.clips import ahead


def test_it_yields_the_same_items_in_order():
    assert list(ahead(range(7))) == list(range(7))
    assert list(ahead(range(7), count=3)) == list(range(7))
    assert list(ahead([])) == []


@pytest.mark.parametrize("count", [1, 2])
def test_the_next_items_are_made_while_the_caller_works_and_no_more_than_these(count):
    made = threading.Semaphore(0)

    def endless():
        item = 0
        while True:
            made.release()
            yield item
            item += 1

    with closing(ahead(endless(), count=count)) as items:
        assert next(items) == 0
        for _ in range(1 + count):      # the first, and those that wait
            assert made.acquire(timeout=10)
        assert not made.acquire(timeout=0.1)


def test_an_error_comes_in_its_place():
    def broken():
        yield 1
        yield 2
        raise ValueError("the third is damaged")

    items = ahead(broken())
    assert list(islice(items, 2)) == [1, 2]
    with pytest.raises(ValueError, match="the third is damaged"):
        next(items)


def test_closing_ends_the_thread_and_closes_the_source():
    closed = threading.Event()

    def source():
        try:
            yield from range(100)
        finally:
            closed.set()

    before = threading.active_count()
    items = ahead(source())
    next(items)
    items.close()
    assert closed.is_set()
    assert threading.active_count() == before
