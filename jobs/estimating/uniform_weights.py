"""Weights that are drawn in a fraction of the time, for a network of which only the cost is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class UniformWeights(TorchFunctionMode):
    """Inside this context, normal numbers are drawn as uniform ones with the same mean and deviation.

    The time of a network does not depend on the distribution of its weights, and its activations keep their size.
    Uniform numbers take half the time. Where a normal distribution is truncated at two deviations, as in most layers,
    torch draws the whole tensor anew, about six times, until every number lies inside. Uniform ones all do: they end
    at 1.73 deviations.
    """

    def __torch_function__(self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        """See `TorchFunctionMode`."""
        call = uniform_ if func is Tensor.normal_ else func
        return call(*args, **(kwargs or {}))


def uniform_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, **generator: Any) -> Tensor:
    """`Tensor.normal_` with a uniform distribution."""
    reach = math.sqrt(3) * std
    return tensor.uniform_(mean - reach, mean + reach, **generator)
