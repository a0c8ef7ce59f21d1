"""Training in the processes of Ray Train. It is imported only where training runs on a cluster."""

from __future__ import annotations

import logging
import socket
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import torch
from ray.exceptions import RayActorError
from ray.train import ControllerError, FailureConfig, LoggingConfig, Result, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer, get_device, prepare_model
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group
from torch import nn

from jobs.cluster import ClusterConfig, explained_loss, is_loss
from jobs.cluster_room import connected_room, workers_of
from jobs.node_probe import NETWORK_SECONDS
from jobs.ray_room import refuse_no_room
from jobs.training.checkpoint_folders import RAY_CHECKPOINTS, add_checkpoint
from jobs.training.interface import OwnInterface
from jobs.training.leaving import Notice, StayingMachines, is_one_gone, living_machines
from jobs.training.loop import rank
from jobs.training.process import Leaving, TrainingProcess
from jobs.training.uploads import Uploads
from pipeline import store
from pipeline.files import remove_file

if TYPE_CHECKING:
    from jobs.training.trainer import TrainingJob

log = logging.getLogger(__name__)

Work = Callable[["TrainingJob", TrainingProcess], Exception | None]


@dataclass(frozen=True)
class RayWorker:
    """One of the processes that Ray Train started. All machines see the folder."""

    folder: Path            # of the stage
    keeps: int              # number of checkpoints that are kept
    notice: Notice | None = None    # None: training does not go on with fewer workers, and so nobody asks
    uploads: Uploads = field(default_factory=Uploads)

    @property
    def device(self) -> torch.device:
        return get_device()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model on its device, wrapped in DDP where there are several workers."""
        return prepare_model(model, parallel_strategy_kwargs={"forward_sync_buffers": False})

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Write a checkpoint on rank 0, and remove those too old to be kept.

        Ray is not given the checkpoint: it would copy the files one by one, and a kill would leave half of them.
        """
        if rank() == 0:
            add_checkpoint(self.folder, RAY_CHECKPOINTS, step, write, keeps=self.keeps, uploads=self.uploads)

    def finish(self) -> None:
        """Wait until the last checkpoint is uploaded."""
        self.uploads.wait()

    def is_leaving(self) -> bool:
        """Whether Ray was told that the machine of this process will be gone, and training goes on without it."""
        return self.notice is not None and self.notice.is_given()


def train_on_cluster(job: TrainingJob, work: Work) -> None:
    """Run `work` in `cluster.workers` processes of Ray Train, again where the process that leads them dies.

    So it is where a worker dies before all have started, which Ray does not count among its failures. Raises what
    `work` returns, the error of a worker that a user can cause, and OSError where processes die too often. With
    `cluster.min_workers`, it runs in as many processes as have room, and Ray looks every minute whether that changed.
    Where a machine of the workers will be gone, they stop after a saved step, and it runs again on the others. So it
    does where a machine is gone and Ray has given up.
    """
    cluster = job.cluster
    check_resources(cluster)
    # Earlier versions gave Ray the checkpoints. It would refuse the folder once one of its list is gone.
    remove_file(job.folder / RAY_CHECKPOINTS / "checkpoint_manager_snapshot.json")
    deaths = 0
    returned = Leaving()
    while isinstance(returned, Leaving):
        try:
            returned = _returned(_trainer(job, work))
        except _Lost:
            deaths += 1
            if deaths > cluster.max_failures:
                refuse_no_room()
                raise OSError(f"A process of Ray that leads the training in {job.folder}, or begins to train, died "
                              f"{deaths} times. Look for the reason in Ray's logs, such as too little memory; then run "
                              "the same command again: the training resumes from its newest checkpoint.") from None
            log.warning("a process of Ray that leads the training or begins to train died; it is started again")
            free_left_groups()
    if returned is not None:
        raise returned


class _Lost(Exception):
    """The process that leads the training, or one that begins to train, died."""


def _returned(trainer: _Trainer) -> Exception | None:
    """What `work` returns. Raises _Lost, or the error that ended training."""
    machines = living_machines()
    try:
        return trainer.fit().return_value
    except (WorkerGroupError, ControllerError) as error:
        losses = list(filter(is_loss, _causes(error)))
        if losses and isinstance(error, ControllerError):
            raise _Lost from None
        mistake = _user_error(error)
        if mistake is None and trainer.scaling_config.elasticity_enabled and is_one_gone(machines):
            log.warning("a machine is gone; training begins again on the others")
            return Leaving()
        raise mistake or (explained_loss(losses[0]) if losses else _first(error, OSError) or error) from None
    except RayActorError:
        raise _Lost from None


def _trainer(job: TrainingJob, work: Work) -> _Trainer:
    """Ray's trainer of a job, which trains once."""
    cluster = job.cluster
    resources = {"CPU": cluster.cpus_per_worker} | ({"GPU": cluster.gpus_per_worker} if cluster.gpus_per_worker else {})
    return _Trainer(
        partial(_worker, job, work, store.looked()),
        scaling_config=ScalingConfig(num_workers=wanted_workers(cluster), resources_per_worker=resources,
                                     use_gpu=cluster.gpus_per_worker > 0),
        torch_config=OwnInterface(backend="nccl" if cluster.gpus_per_worker else "gloo"),
        run_config=RunConfig(name=RAY_CHECKPOINTS, **storage_of(job.folder),
                             failure_config=FailureConfig(max_failures=cluster.max_failures),
                             logging_config=LoggingConfig(log_level="WARNING")))      # not each step of its start


class _Trainer(TorchTrainer):
    """Ray's trainer, which leaves Ctrl-C to the verb (jobs/stopping.py) and counts no machine that will be gone."""

    def _initialize_and_run_controller(self, **parts: Any) -> Result:
        if self.scaling_config.elasticity_enabled:
            parts["scaling_policy"] = StayingMachines(self.scaling_config)
        return super()._initialize_and_run_controller(**parts)

    def _register_sigint_handler(self, controller: Any) -> None:
        """Ray's own handler waits for its controller, prints what it does, and does not end the verb."""


def check_resources(cluster: ClusterConfig) -> None:
    """Raise ValueError when the workers can never fit on the cluster: Ray would wait endlessly without a message."""
    if fault := connected_room().fault(workers_of(cluster)):
        raise ValueError(fault)


def wanted_workers(cluster: ClusterConfig) -> int | tuple[int, int]:
    """The number of workers as `ScalingConfig` takes it: fewest and most where it may change."""
    fewest = cluster.fewest_workers
    return fewest if fewest == cluster.workers else (fewest, cluster.workers)


def free_left_groups() -> None:
    """Give back what trainings of this job hold on the cluster after the death of the process that led them.

    Ray has a process for that, which may have died as well; the next training would then wait endlessly for room.
    """
    job = ray.get_runtime_context().get_job_id()
    for group in placement_group_table():
        if group.endswith(job):     # the end of every id of Ray is that of its job
            remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(group)))


def _user_error(failure: WorkerGroupError | ControllerError) -> Exception | None:
    """The error of a worker or of Ray's controller that met wrong data, settings or files, if that ended training."""
    if isinstance(failure, WorkerGroupError):
        return _first(failure, ValueError, FileNotFoundError)
    return _first(failure, ValueError, OSError)


def _first(failure: WorkerGroupError | ControllerError, *kinds: type[Exception]) -> Exception | None:
    """The first error of these kinds, such as the one of a store that is gone."""
    return next((error for error in _causes(failure) if isinstance(error, kinds)), None)


def _causes(failure: WorkerGroupError | ControllerError) -> list[Exception]:
    """The errors of the workers or of the controller, without the errors in which Ray wraps them."""
    errors = (failure.worker_failures.values() if isinstance(failure, WorkerGroupError)
              else (failure.controller_failure,))
    for wrapped in ("_base_exc", "health_check_failure"):
        errors = [getattr(error, wrapped, error) for error in errors]
    return list(errors)


def storage_of(folder: Path) -> dict[str, Any]:
    """Where Ray Train keeps its own notes on a training, as `RunConfig` takes it."""
    place = store.place_of(folder)
    if place is None:
        return {"storage_path": str(folder)}
    return {"storage_path": place.key, "storage_filesystem": place.store}


def refuse_other_disk(job: TrainingJob) -> None:
    """Raise FileNotFoundError on a host that does not see the folder of the run.

    An autoscaler may have added it after all others were checked, and it would save onto a disk of its own.
    """
    if job.record is None or store.in_store(job.folder):
        return
    ends = time.monotonic() + NETWORK_SECONDS
    while not job.record.folder.is_dir():       # which the verb has made
        if time.monotonic() > ends:
            run = job.record.folder.parent.parent
            raise FileNotFoundError(f"the host {socket.gethostname()} does not see {run}, which all hosts must share: "
                                    "mount the shared file system there, or take the host out of the cluster")
        time.sleep(0.1)


def _worker(job: TrainingJob, work: Work, looked: dict[str, str]) -> Exception | None:
    """The function of a Ray Train process. Returns, the same on all ranks, an error that a retry would meet again, or
    Leaving.
    """
    store.look_too(looked)
    refuse_other_disk(job)
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    notice = Notice() if job.cluster.fewest_workers < job.cluster.workers else None
    return work(job, RayWorker(job.folder, job.fit.keep_checkpoints, notice))
