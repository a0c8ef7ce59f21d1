"""Trajectory attention, forward and backward, against the formula of the paper (arXiv 2311.18537v1, eq. 2-4).

The formula stores a score for every pair of tokens and projects every trajectory point. Two uses are measured: the
height and the width pass over maps of stride 16, and the queries of all clips of a video. Ours is also stated as a
share of the rate at which the same machine multiplies matrices: the operations of its matrix products, over its time.
It runs on a GPU where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.harness import Results, seconds_of
from model.layers.trajectory_attention import TrajectoryAttention

DIM = 256
HEADS = 8

MEASURES = ("model/layers/trajectory_attention.py",)


@dataclass(frozen=True, kw_only=True)
class Size:
    """The height and width of the map, the frames of the clips, and the clips of the videos."""

    map: tuple[int, int]
    frames: tuple[int, ...]
    clips: tuple[int, ...]


SIZES = {"toy": Size(map=(3, 4), frames=(2,), clips=(2,)),
         "full": Size(map=(49, 85), frames=(2, 4, 6), clips=(12, 24, 48))}     # a frame of 769 x 1345 at stride 16


def run(size: Size, results: Results) -> None:
    """Time and memory of every number of frames and clips."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    height, width = size.map
    for frames in size.frames:
        _measure(results, f"axial passes, {height}x{width}, T={frames}",
                 axial_passes(frames=frames, height=height, width=width, device=device), device)
    for clips in size.clips:
        _measure(results, f"queries of {clips} clips, N=128", queries(clips=clips, device=device), device)


def _measure(results: Results, name: str, sides: list[Callable], device: str) -> None:
    ours, formula = (partial(side, device=device) for side in sides)
    row = results.compare(name, ours=ours, baseline=formula, repeats=2, memory=True, device=device, agree=agree)
    rate = operations(ours) / row.detail["ours_seconds"]
    results.add(f"{name}, share of the rate of a matrix product", 100 * rate / matrix_rate(device), "%", device=device)


def operations(function: Callable[[], object]) -> int:
    """The operations of all matrix products of one call, forward and backward."""
    with _Products() as products:
        function()
    return products.operations


class _Products(TorchDispatchMode):
    """Counts the operations of matrix products. `FlopCounterMode` does not go through `torch.autograd.grad`."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if (count := flop_registry.get(function.overloadpacket)) is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=result)
        return result


def matrix_rate(device: str) -> float:
    """Operations a second of one large matrix product in float32, at best."""
    one = torch.randn(4096, 512, device=device)
    other = torch.randn(512, 512, device=device)
    seconds = min(seconds_of(partial(torch.matmul, one, other), device) for _ in range(10))
    return 2 * one.numel() * other.shape[1] / seconds


def agree(ours: list[Tensor], formula: list[Tensor]) -> None:
    """Results and gradients of both agree to 1e-5 of the largest value."""
    for one, other in zip(ours, formula, strict=True):
        gap = ((one - other).abs().max() / other.abs().max()).item()
        assert gap < 1e-5, f"results differ by {gap:.1e} of the largest value"


class Formula(nn.Module):
    """Equations 2 to 4 with `torch.einsum`; shares its weights with the module of the project."""

    def __init__(self, module: TrajectoryAttention) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, *, frames: int) -> Tensor:
        """x: b (t s) c. Returns b (t s) c."""
        m = self.module
        scale = (DIM // HEADS) ** -0.5
        projected = m.qkv(x).chunk(3, dim=-1) if m.fused_qkv else (m.q(x), m.k(x), m.v(x))
        q, k, v = (rearrange(y, "b (t s) (heads d) -> b heads t s d", heads=HEADS, t=frames) for y in projected)
        scores = torch.einsum("bhtsd,bhurd->bhtsur", q, k) * scale
        points = torch.einsum("bhtsur,bhurd->btsuhd", scores.softmax(-1), v)
        points = rearrange(points, "b t s u heads d -> b t s u (heads d)")
        own = torch.stack([points[:, frame, :, frame] for frame in range(frames)], dim=1)
        q = rearrange(m.proj_q(own), "b t s (heads d) -> b t s heads d", heads=HEADS)
        k, v = rearrange(m.proj_kv(points), "b t s u (two heads d) -> two b t s u heads d", two=2, heads=HEADS)
        weights = (torch.einsum("btshd,btsuhd->btshu", q, k) * scale).softmax(-1)
        z = torch.einsum("btshu,btsuhd->btshd", weights, v)
        return m.proj(rearrange(z, "b t s heads d -> b (t s) (heads d)"))


def axial_passes(*, frames: int, height: int, width: int, device: str) -> list[Callable]:
    """A pass down the columns and one along the rows of one clip, each with its own weights."""
    modules = [TrajectoryAttention(DIM, HEADS).to(device) for _ in range(2)]
    x = torch.randn(1, frames, height, width, DIM, device=device)
    columns = rearrange(x, "b t h w c -> (b w) (t h) c").contiguous()
    rows = rearrange(x, "b t h w c -> (b h) (t w) c").contiguous()
    return [partial(forward_backward, list(zip(both, (columns, rows))), frames)
            for both in (modules, [Formula(module) for module in modules])]


def queries(*, clips: int, device: str) -> list[Callable]:
    """The queries of all clips of one video, clip by clip."""
    module = TrajectoryAttention(DIM, HEADS, fused_qkv=True).to(device)
    x = torch.randn(1, clips * 128, DIM, device=device)
    return [partial(forward_backward, [(one, x)], clips) for one in (module, Formula(module))]


def forward_backward(work: list[tuple[nn.Module, Tensor]], frames: int, *, device: str) -> list[Tensor]:
    """Results and gradients of the inputs. Gradients of the weights are computed too."""
    results = []
    for module, x in work:
        x = x.detach().requires_grad_()
        result = module(x, frames=frames)
        gradient, *_ = torch.autograd.grad(result, [x, *module.parameters()], torch.ones_like(result))
        results += [result.detach(), gradient]
    return results
