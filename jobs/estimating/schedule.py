"""The schedule of a verb on a cluster, simulated: who waits for whom, and so where more machines stop helping.

Everything that several processes share is a line at a counter: the folder that all machines read and write, the network
of each machine, the driver that takes every result, and the tracker. A task takes its turn at each counter and computes
in between. Work is handed out as Ray does: the next task goes to the process that is free first.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace

ENDLESS = float("inf")
MOST_TASKS = 4096           # that are simulated one by one; more are put together
MOST_MACHINES = 4096
GAIN = 0.1                  # of the time, that twice as many machines save at least while they help
HELPERS = 3                 # processes that Ray Data and Ray Train each start beside those of a verb, on one machine


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Machines that are alike, and what they share."""

    machines: int = 1
    cpus: int = 2                       # of each machine
    gpus: int = 0                       # of each machine
    storage: float = 1e9                # bytes a second of the shared folder, for all machines together
    network: float = 1.25e9             # bytes a second of each machine: 10 Gbit/s
    latency: float = 1e-4               # seconds of a message between machines
    driver: float = 0.01                # seconds for a result
    tracker: float = 0.02               # seconds for a record
    start: float = 5.0                  # seconds of a core for a process that imports what it needs
    connect: float = 0.0                # seconds until Ray runs, where the verb starts it
    gpu_rate: float = 15.7e12           # float32 operations a second of a GPU in a matrix product: a V100

    @property
    def processors(self) -> int:
        """What computes on a machine, one process each: its GPUs, or its CPUs where it has none."""
        return self.gpus or self.cpus

    def started(self, processes: int, *, before: int = 0) -> float:
        """Seconds until so many processes of each machine have started, after `before` others one by one.

        Ray's helpers start at the same time, and share the cores with them.
        """
        return self.start * (before + max((processes + HELPERS) / self.cpus, 1))


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """Work in pieces that wait for nobody: shards, videos."""

    tasks: int
    seconds: float                      # of a task in a process
    read: float = 0.0                   # bytes of a task
    written: float = 0.0                # bytes of a task
    alone: float = 0.0                  # seconds that the verb itself takes, whatever the number of machines
    networks: bool = True               # whether its processes run networks: others import so little that their start,
                                        # with that of Ray's helpers, takes no longer than that of one that does
    pieces: str                         # what they are: the reason where there are too few of them

    def time(self, cluster: Cluster) -> float:
        """Seconds from the call to the end of the verb."""
        together = max(-(-self.tasks // MOST_TASKS), 1)
        tasks = -(-self.tasks // together)
        processes = min(cluster.machines * cluster.processors, tasks)
        started = cluster.started(min(cluster.processors, processes)) if self.networks else cluster.start
        free = [(started, process) for process in range(processes)]
        links = [0.0] * min(cluster.machines, processes)
        storage = driver = 0.0
        moved = (self.read + self.written) * together
        for _ in range(tasks):
            now, process = heapq.heappop(free)
            machine = process % cluster.machines
            storage = max(storage, now) + moved / cluster.storage
            links[machine] = max(links[machine], now) + moved / cluster.network
            computed = max(storage, links[machine], now) + self.seconds * together
            driver = max(driver, computed) + cluster.driver * together
            heapq.heappush(free, (computed, process))
        return max([driver, *(now for now, _ in free)]) + self.alone + cluster.connect

    def without(self, limit: str) -> Tasks:
        """The same work in as many pieces as one likes, where that is the limit."""
        if limit != self.pieces:
            return self
        finer = MOST_TASKS
        return replace(self, tasks=self.tasks * finer, seconds=self.seconds / finer, read=self.read / finer,
                       written=self.written / finer)

    @property
    def most_processes(self) -> int:
        """Processes that have something to do."""
        return self.tasks

    @property
    def counters(self) -> tuple[str, ...]:
        """The names of everything that may be the limit."""
        return (self.pieces, "storage", "network", "driver", "start")


@dataclass(frozen=True, kw_only=True)
class Steps:
    """A training: in every step all processes take a part of the batch, and then exchange gradients."""

    steps: int
    batch: int                          # samples of a step
    seconds: float                      # of a sample in a process
    update: float                       # seconds of a step in every process, whatever its samples
    decode: float                       # seconds of a core to read a sample
    loaders: int                        # processes that decode beside each training process; 0: it decodes itself
    read: float                         # bytes of a sample
    weights: float                      # bytes of the gradients
    records: int                        # that the tracker gets meanwhile; the verb ends when it has all of them
    alone: float = 0.0
    pieces: str = "samples of a step"

    def time(self, cluster: Cluster) -> float:
        """Seconds from the call to the end of the verb."""
        processes = min(cluster.machines * cluster.processors, self.batch)
        machines = min(cluster.machines, processes)
        share = -(-self.batch // processes)
        compute = share * self.seconds + self.update
        readers = min(self.loaders, max(cluster.cpus // cluster.processors, 1))
        decode = share * self.decode / max(readers, 1)
        storage = self.batch * self.read / cluster.storage
        step = max(compute, decode, storage) if self.loaders else compute + max(decode, storage)
        exchange = 2 * self.weights * (machines - 1) / machines / cluster.network + cluster.latency * machines
        started = cluster.started(cluster.processors, before=1)         # Ray Train's controller
        trained = started + self.steps * (step + exchange * (machines > 1))
        return max(trained, self.records * cluster.tracker) + self.alone + cluster.connect

    def without(self, limit: str) -> Steps:
        """The same work with a batch that any number of processes can share, where that is the limit."""
        if limit != self.pieces:
            return self
        return replace(self, batch=self.batch * MOST_MACHINES, seconds=self.seconds / MOST_MACHINES,
                       decode=self.decode / MOST_MACHINES, read=self.read / MOST_MACHINES)

    @property
    def most_processes(self) -> int:
        """Processes that have something to do."""
        return self.batch

    @property
    def counters(self) -> tuple[str, ...]:
        """The names of everything that may be the limit."""
        return (self.pieces, "storage", "network", "tracker", "start")


Work = Tasks | Steps
FREE = {"storage": {"storage": ENDLESS}, "network": {"network": ENDLESS, "latency": 0.0}, "driver": {"driver": 0.0},
        "tracker": {"tracker": 0.0}, "start": {"start": 0.0, "connect": 0.0}}


def largest_useful(work: Work, cluster: Cluster) -> tuple[int, str]:
    """The number of machines, doubled from one on, at which a verb stops getting faster, and what stops it.

    The reason is what would save most of the time of twice as many machines if there were no end of it.
    """
    machines = 1
    while machines < MOST_MACHINES:
        more = replace(cluster, machines=2 * machines)
        if work.time(more) > (1 - GAIN) * work.time(replace(cluster, machines=machines)):
            return machines, limit_of(work, more)
        machines *= 2
    return machines, "nothing yet"


def limit_of(work: Work, cluster: Cluster) -> str:
    """What costs most of the time of a verb on a cluster beside computing."""
    times = {name: work.without(name).time(replace(cluster, **FREE.get(name, {}))) for name in work.counters}
    if work.alone > work.time(cluster) - min(times.values()):
        return "what the verb does alone"
    return min(times, key=times.__getitem__)
