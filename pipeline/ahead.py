"""Items that a thread makes while the caller works on the ones before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_END = object()


def ahead(items: Iterable[T], *, count: int = 1) -> Iterator[T]:
    """The same items in the same order, of which up to `count` wait ready while the caller works on one.

    Reading and decoding release Python's lock, so they run beside the network. An error is raised in place of the item
    that could not be made. One thread makes all items. Closing the iterator waits for the item in the making and
    closes `items`.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as thread:
        waiting = deque(thread.submit(next, iterator, _END) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(thread.submit(next, iterator, _END))
                yield item
                del item
        finally:
            for later in waiting:
                later.cancel()
            thread.shutdown()
            if hasattr(iterator, "close"):
                iterator.close()
