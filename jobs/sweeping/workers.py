"""Warm processes that take one piece of work after another.

Ray Data's actors, which the other verbs use, end with their stream of rows. A trial of a few seconds must not wait for
a process that imports torch and opens a cache, so these live as long as the sweep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.cluster import ClusterConfig
from pipeline import store


@dataclass(frozen=True)
class Failure:
    """A piece of work that ended with an error, or whose process died."""

    error: str


class Worker:
    """An object in a process of its own, on a machine that sees in stores what the caller of each method saw."""

    def __init__(self, kind: type, arguments: dict[str, Any], looked: Mapping[str, str]) -> None:
        store.look_too(looked)
        self._worker = kind(**arguments)

    def call(self, method: str, piece: tuple, looked: Mapping[str, str]) -> Any:
        store.look_too(looked)
        return getattr(self._worker, method)(*piece)


class Workers:
    """`cluster.actors` processes, each with an object `kind(**arguments)`; one object here under `in_process`.

    A piece of work is tried again until its process has died more than `cluster.max_failures` times.
    """

    def __init__(self, kind: type, arguments: dict[str, Any], cluster: ClusterConfig) -> None:
        self._kind = kind
        self._arguments = arguments
        self._cluster = cluster
        self._here = kind(**arguments) if cluster.in_process else None
        self._actors = [] if cluster.in_process else [self._start() for _ in range(cluster.actors)]

    def _start(self):
        import ray  # here and below: Ray takes a second to import, and `--help` answers without it

        remote = ray.remote(Worker).options(num_cpus=self._cluster.cpus_per_actor,
                                            num_gpus=self._cluster.gpus_per_actor)
        return remote.remote(self._kind, self._arguments, store.looked())

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)

    def each(self, method: str, pieces: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
        """Call a method with the arguments of every piece; (position, result or Failure) as they finish.

        What the pieces left in stores can be seen here, and by those of the next call.
        """
        if self._here is not None:
            yield from ((index, _attempt(self._here, method, piece)) for index, piece in enumerate(pieces))
            return
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        most = self._cluster.max_failures
        waiting = [(index, 0) for index in reversed(range(len(pieces)))]
        free = list(self._actors)
        running: dict[ray.ObjectRef, tuple[Any, int, int]] = {}
        while waiting or running:
            while waiting and free:
                index, deaths = waiting.pop()
                actor = free.pop()
                running[actor.call.remote(method, pieces[index], store.looked())] = actor, index, deaths
            (reference, *_), _ = ray.wait(list(running), num_returns=1)
            actor, index, deaths = running.pop(reference)
            try:
                result = ray.get(reference)
            except RayActorError as error:
                self._actors.remove(actor)
                actor = self._start()
                self._actors.append(actor)
                if deaths < most:
                    waiting.append((index, deaths + 1))
                else:
                    yield index, Failure(f"its process died {most + 1} times (cluster.max_failures={most}), perhaps "
                                         f"for lack of memory: {str(error).splitlines()[0]}")
            except RayTaskError as error:
                yield index, Failure(_text(error.cause))
            else:
                yield index, result
            free.append(actor)
        store.look_again()


def _attempt(worker: Any, method: str, piece: tuple) -> Any:
    try:
        return getattr(worker, method)(*piece)
    except Exception as error:      # whatever a trial does costs only itself
        return Failure(_text(error))


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
