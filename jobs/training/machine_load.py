"""How busy the machine of a training is, under the names that MLflow's page of system metrics shows.

The loop asks whenever it logs, so no thread of its own measures. MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false leaves the
numbers out; MLflow's own name for the setting serves here too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

SETTING = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
SECONDS = 10.0          # between measurements, as in MLflow
MEGABYTE = 1e6


def is_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether trainings log the load of their machine; by default they do."""
    return environment.get(SETTING, "").strip().lower() not in ("false", "0")


class MachineLoad:
    """The load of this machine since the last question. folder: on the disk whose space is measured."""

    def __init__(self, folder: Path, *, seconds: float = SECONDS) -> None:
        self.folder = folder
        self.seconds = seconds
        self.asked = time.monotonic()
        self.traffic = _traffic()
        psutil.cpu_percent()        # its first answer is always 0

    def numbers(self) -> dict[str, float]:
        """The numbers, {} where the last ones are younger than `seconds`. What this machine does not tell is absent."""
        if time.monotonic() - self.asked < self.seconds:
            return {}
        self.asked = time.monotonic()
        memory = psutil.virtual_memory()
        numbers = {"cpu_utilization_percentage": psutil.cpu_percent(),
                   "system_memory_usage_megabytes": (memory.total - memory.available) / MEGABYTE,
                   "system_memory_usage_percentage": memory.percent}
        with suppress(OSError):         # the folder may be gone
            disk = psutil.disk_usage(str(self.folder))
            numbers |= {"disk_usage_percentage": disk.percent, "disk_available_megabytes": disk.free / MEGABYTE}
        before = self.traffic
        self.traffic = _traffic()
        numbers |= {name: max(now - before[name], 0.0) for name, now in self.traffic.items() if name in before}
        return {f"system/{name}": value for name, value in (numbers | _gpus()).items()}


def _traffic() -> dict[str, float]:
    """What all networks of this machine have carried so far; {} where it has none, or hides them."""
    counters = psutil.net_io_counters()
    if counters is None:
        return {}
    return {"network_receive_megabytes": counters.bytes_recv / MEGABYTE,
            "network_transmit_megabytes": counters.bytes_sent / MEGABYTE}


def _gpus() -> dict[str, float]:
    """The load of each GPU; {} without one, or without the package nvidia-ml-py."""
    try:
        import pynvml
    except ImportError:
        return {}
    numbers: dict[str, float] = {}
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        for number in range(pynvml.nvmlDeviceGetCount()):
            numbers |= _gpu(pynvml, number)
    return numbers


def _gpu(pynvml: Any, number: int) -> dict[str, float]:
    device = pynvml.nvmlDeviceGetHandleByIndex(number)
    memory = pynvml.nvmlDeviceGetMemoryInfo(device)
    return {f"gpu_{number}_utilization_percentage": pynvml.nvmlDeviceGetUtilizationRates(device).gpu,
            f"gpu_{number}_memory_usage_megabytes": memory.used / MEGABYTE,
            f"gpu_{number}_memory_usage_percentage": 100 * memory.used / memory.total}
