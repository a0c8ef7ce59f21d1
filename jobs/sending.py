"""Functions that run on a named machine of the cluster, whether or not it has this project."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import ray
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def on_node(function: Callable, node: str, *arguments: Any) -> ray.ObjectRef:
    """Run a function on the node of this id, beside whatever else runs there; returns where its result will be.

    The function is sent by value, with all of its module that it uses.
    """
    module = sys.modules[function.__module__]
    cloudpickle.register_pickle_by_value(module)
    try:
        task = ray.remote(function).options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        return task.remote(*arguments)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
