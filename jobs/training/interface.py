"""The network interface through which training processes exchange gradients: the one that Ray's own traffic takes.

gloo would take the interface of the address to which the host's own name resolves. With the line `127.0.1.1 hostname`,
which Debian puts into /etc/hosts, that is the loopback interface, and no other host reaches it. NCCL would take the
first interface that is up, which on a host with several may lead nowhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import psutil
import ray.util
from ray.train.torch import TorchConfig

from jobs.cluster import INTERFACES


@dataclass
class OwnInterface(TorchConfig):
    """Ray's settings of the process group, whose processes choose their interface before they join it."""

    @property
    def backend_cls(self) -> type:
        """Ray's backend with one more step at its start."""

        class Backend(super().backend_cls):
            def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
                worker_group.execute(choose_interface)
                super().on_start(worker_group, backend_config)

        return Backend


def choose_interface() -> None:
    """Set the variables of gloo and NCCL in this process, except those that the user has set."""
    interface = interface_of(ray.util.get_node_ip_address())
    for variable in INTERFACES if interface else ():
        os.environ.setdefault(variable, interface)


def interface_of(address: str) -> str:
    """The name of the interface that has an address; "" where none has, as behind a translated address."""
    return next((name for name, addresses in psutil.net_if_addrs().items()
                 if any(own.address.partition("%")[0] == address for own in addresses)), "")
