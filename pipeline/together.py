"""Videos one after the other in one pass of the segmenter: where one ends, its clips share a batch with the next one's.

`inference.clips_together` clips fill a GPU, and a short video or a single picture has too few of them. The predictions
are those of the videos one by one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from typing import Generic, TypeVar

from model.contracts import ClipPrediction
from pipeline.system import NetworkInput, System

S = TypeVar("S")
C = TypeVar("C", bound=NetworkInput)


class Walk(Generic[S, C]):
    """One of the videos. Iterate it once, after those before it, for its clips with their predictions.

    What goes wrong in reading a clip is raised in its place; the videos that follow do not notice.
    """

    def __init__(self, open: Callable[[], S], pairs: Iterator[tuple[C, ClipPrediction]]) -> None:
        self._open = open
        self._pairs = pairs
        self._opened: list[S] = []
        self._lock = threading.Lock()

    @property
    def source(self) -> S:
        """The open video, which whoever comes first opens: its reader or the caller. Raises what opening it raises."""
        with self._lock:
            if not self._opened:
                self._opened.append(self._open())
            return self._opened[0]

    def __iter__(self) -> Iterator[tuple[C, ClipPrediction]]:
        return self._pairs


@contextmanager
def walks_together(system: System, opens: Sequence[Callable[[], S]], clips_of: Callable[[S], Iterable[C]], *,
                   places: bool) -> Iterator[list[Walk[S, C]]]:
    """A walk for each video, in their order, until the context is left.

    opens: of each video; called when its turn comes to be read. clips_of: the clips of an open video as network input.
    places: see `System.predict_clip`.
    """
    errors: dict[int, Exception] = {}
    owners: deque[int] = deque()        # of the clips that were read and have not left the segmenter
    current: tuple[int, Iterator[tuple[C, ClipPrediction]]] = (-1, iter(()))
    asked = 0                           # the walk that is iterated, or was the last one

    def clips() -> Iterator[C]:
        for number, walk in enumerate(walks):
            try:
                for clip in clips_of(walk.source):
                    if number < asked:      # the caller has left it
                        break
                    owners.append(number)
                    yield clip
            except Exception as error:      # raised again where the clip is asked for
                errors[number] = error

    def pairs_of(number: int) -> Iterator[tuple[C, ClipPrediction]]:
        nonlocal asked, current
        asked = number
        while current[0] < number:          # what was left of earlier videos is dropped
            current = next(groups, (len(walks), iter(())))
        if current[0] == number:
            yield from current[1]
        if number in errors:
            raise errors[number]

    walks = [Walk(open, pairs_of(number)) for number, open in enumerate(opens)]
    with closing(system.predictions_of(clips(), places=places)) as predictions:
        groups = groupby(predictions, key=lambda _: owners.popleft())
        yield walks
