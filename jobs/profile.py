"""What the networks of a recipe cost: parameters, FLOPs, frames per second and peak memory.

In:     a recipe; no data and no weights. --size and --clip-frames replace the recipe's own.
Out:    a table, and the same numbers as JSON on the last line; nothing is written.
Cost:   counting takes seconds and computes nothing; measuring runs --repeats clips, on the GPU where there is one.

Parameters are the weights inference reads. What only training reads (the semantic head, the class heads of the decoder
layers) is listed apart. FLOPs are those of convolutions and matrix products, attention included by its formula
whichever kernel runs it; a multiplication and its addition are one, as papers count; norms, activations, resizing and
bilinear sampling are not counted. Time and memory are the segmenter's in float32, without association and merging.

So counted, with 124 classes and frames of the size the table states, Video-kMaX comes out as published (arXiv
2304.04694, supplement, table 3; published numbers in brackets):

                  parameters      720x1280, one frame   two frames       375x1242, one frame
    ResNet-50     56.37 M (56.4)  160.4 G (162)         319.6 G (324)    82.6 G (83)
    ConvNeXt-L    231.63 (231.6)  719.1 (715)           1437.0 (1431)    371.7 (370)

With the class heads of the decoder layers it has 56.56 M and 231.82 M; with those and the 19 classes of KITTI-STEP
56.38 M and 231.63 M, which the table may mean as well. At 721x1281, the next size of 1 + 16 k, FLOPs are 2.5 % more.

    python -m jobs.profile --recipe vipseg_video_kmax_r50 --size 720 1280 --clip-frames 1 --repeats 0
    python -m jobs.profile --recipe tiny
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Annotated, Any

import torch
import tyro
from einops import repeat
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from jobs.config import override
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from jobs.training.progress import peak_memory, say
from jobs.verb import guarded
from model.contracts import ClipPrediction, VideoQueries
from model.cross_clip import build_cross_clip_head
from model.segmenters import SegmenterConfig, build_segmenter

COUNTED = ("parameters: weights inference reads. FLOPs: convolutions and matrix products, multiply-add = 1. Time and "
           "memory: the segmenter in float32, without association and merging")


@dataclass(frozen=True, kw_only=True)
class Count:
    """What one pass through a module reads and multiplies."""

    parameters: dict[str, int]      # weights that are read, by part
    training_only: dict[str, int]   # weights that are not, by the largest module they fill
    flops: dict[str, int]           # multiply-adds by part; "outside": between the parts

    def to_json(self) -> dict[str, Any]:
        """Millions of parameters and billions of multiply-adds."""
        def scaled(parts: dict[str, int], unit: float) -> dict[str, float]:
            return {name: round(number / unit, 3) for name, number in parts.items()}
        return {"parameters_m": scaled({**self.parameters, "total": sum(self.parameters.values())}, 1e6),
                "training_only_m": scaled(self.training_only, 1e6),
                "gflops": scaled({**self.flops, "total": sum(self.flops.values())}, 1e9)}


def main(recipe: Recipe, *, size: tuple[int, int] | None = None, clip_frames: int | None = None,
         repeats: int = 5) -> dict[str, Any]:
    """Count the segmenter and the head, measure the segmenter, print; returns what the last line says."""
    size = recipe.stage_one.input.augment.size if size is None else size
    frames = recipe.stage_one.segmenter_frames if clip_frames is None else clip_frames
    if min(*size, frames) < 1 or repeats < 0:
        raise ValueError(f"size {size}, {frames} frames and {repeats} repeats: size and frames must be at least 1, "
                         "repeats at least 0 (0 counts without measuring)")
    config = without_download(recipe.stage_one.segmenter)
    segmenter, head = count_networks(recipe, config, size=size, frames=frames)
    clips = recipe.stage_two.input.clips
    result = {}
    say(f"{recipe.name} at {size[0]}x{size[1]}, clips of {frames}, {config.num_classes} classes", COUNTED,
        *table("segmenter, one clip", segmenter), *table(f"cross-clip head, {clips} clips", head))
    if repeats:
        result = measure(config, size=size, frames=frames, repeats=repeats)
        say(f"{result['frames_per_second']} frames/s on {result['device']}, {result['seconds_per_clip']} s per clip "
            f"(median of {repeats}), peak memory {result['peak_memory_gib']} GiB")
    return {"recipe": recipe.name, "size": list(size), "clip_frames": frames, "classes": config.num_classes,
            "segmenter": segmenter.to_json(), "head": {**head.to_json(), "clips": clips}, **result}


def without_download(config: SegmenterConfig) -> SegmenterConfig:
    """The same network without pre-trained weights: costs do not depend on them."""
    return replace(config, backbone=replace(config.backbone, pretrained=False))


def count_networks(recipe: Recipe, config: SegmenterConfig, *, size: tuple[int, int], frames: int
                   ) -> tuple[Count, Count]:
    """The segmenter on one clip of `frames` frames, H W each, and the head on the recipe's number of such clips."""
    with torch.device("meta"):      # weights without numbers; `count` moves them
        segmenter = build_segmenter(config).eval()
        head = build_cross_clip_head(recipe.stage_two.head).eval()
    with shapes_only():
        clip = torch.zeros(1, frames, 3, *size, dtype=torch.uint8)
        prediction, of_segmenter = count(segmenter, lambda: segmenter(clip))
        _, of_head = count(head, lambda: head_masks(head, prediction, clips=recipe.stage_two.input.clips))
    return of_segmenter, of_head


def head_masks(head: nn.Module, prediction: ClipPrediction, *, clips: int) -> Tensor:
    """The head's answer for a video of `clips` clips like this one: mask logits b k n t h w of its last layer."""
    def video(part: Tensor) -> Tensor:
        return repeat(part, "b ... -> b k ...", k=clips)
    queries = VideoQueries(queries=video(prediction.queries), mask_embeddings=video(prediction.mask_embeddings),
                           class_logits=video(prediction.class_logits))
    return head.mask_logits(head(queries)[-1].mask_embeddings, video(prediction.pixel_features))


@contextmanager
def shapes_only() -> Iterator[None]:
    """Inside, tensors claim to be on the CPU but hold no numbers, and attention is written out.

    The counter does not see into all fused attention kernels (on a CPU it finds nothing), so that what is counted would
    depend on where and with which version it is counted.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def count(network: nn.Module, run: Callable[[], Any]) -> tuple[Any, Count]:
    """The result of `run`, which calls the network, and what it took. Only inside `shapes_only`."""
    network.to_empty(device="cpu").requires_grad_(False)
    with FlopCounterMode(display=False) as counter, _Reads() as reads:
        result = run()
    by_module = {name: sum(kinds.values()) // 2 for name, kinds in counter.get_flop_counts().items()}
    flops = {name: _inside(child, by_module, f"{type(network).__name__}.{name}")
             for name, child in network.named_children()}
    flops["outside"] = by_module["Global"] - sum(flops.values())
    parameters = Counter()
    for name, weight in network.named_parameters():
        parameters[name.partition(".")[0]] += weight.numel() * (id(weight) in reads.seen)
    return result, Count(parameters={name: number for name, number in parameters.items() if number},
                         training_only=dict(_unread(network, reads.seen)),
                         flops={name: number for name, number in flops.items() if number})


def measure(config: SegmenterConfig, *, size: tuple[int, int], frames: int, repeats: int) -> dict[str, Any]:
    """Median time of `repeats` clips of random pixels, b = 1; one more goes first to warm up, unless it is only one.

    Peak memory is the GPU's allocated memory, or on a CPU the resident memory of the whole process.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    segmenter = build_segmenter(config).eval().to(device)
    seconds = []
    clip = torch.randint(0, 256, (1, frames, 3, *size), dtype=torch.uint8, device=device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        for _ in range(repeats + (repeats > 1)):
            started = time.perf_counter()
            segmenter(clip)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    typical = median(seconds[-repeats:])
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU ({torch.get_num_threads()} threads)"
    return {"device": name, "repeats": repeats, "seconds_per_clip": round(typical, 4),
            "frames_per_second": round(frames / typical, 2), "peak_memory_gib": round(peak_memory(), 2)}


def table(title: str, counted: Count) -> list[str]:
    """One line per part."""
    numbers = counted.to_json()
    parameters = numbers["parameters_m"]
    flops = numbers["gflops"]
    parts = [name for name in dict.fromkeys([*parameters, *flops]) if name != "total"]
    return [f"{title:<32} {'parameters (M)':>15} {'GFLOPs':>12}",
            *(f"  {name:<30} {parameters.get(name, 0):>15.3f} {flops.get(name, 0):>12.3f}"
              for name in (*parts, "total")),
            *(f"  only in training: {name} {number:.3f} M" for name, number in numbers["training_only_m"].items())]


class _Reads(TorchDispatchMode):
    """Remembers every tensor an operation takes; keeps them, so that no other takes their id."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, nn.Parameter):
                self.seen[id(leaf)] = leaf
        return func(*args, **(kwargs or {}))


def _inside(module: nn.Module, by_module: dict[str, int], name: str) -> int:
    """FLOPs of a module, or of what it holds where it is a list that is never called itself."""
    if name in by_module:
        return by_module[name]
    return sum(_inside(child, by_module, f"{name}.{leaf}") for leaf, child in module.named_children())


def _unread(module: nn.Module, read: dict[int, Tensor], name: str = "") -> Counter[str]:
    """Weights of the largest modules without any weight in `read`; layers of a list are summed under one name."""
    weights = list(module.parameters())
    if weights and not any(id(weight) in read for weight in weights):
        return Counter({re.sub(r"\.\d+", ".*", name): sum(weight.numel() for weight in weights)})
    found = Counter({f"{name}.{leaf}": weight.numel() for leaf, weight in module.named_parameters(recurse=False)
                     if id(weight) not in read})
    for leaf, child in module.named_children():
        found += _unread(child, read, f"{name}.{leaf}".lstrip("."))
    return found


def command(recipe: str, size: tuple[int, int] | None = None, clip_frames: int | None = None, repeats: int = 5,
            set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()) -> int:
    """Count and measure a recipe's networks.

    Args:
        recipe: name of a recipe; an unknown name lists all of them.
        size: height and width of the network input, pixels; the recipe's where not given.
        clip_frames: frames of a clip; the recipe's where not given.
        repeats: clips to measure; 0 only counts.
        set: path.to.field=value, may be given several times.
    """
    def profile(chosen: Recipe) -> dict[str, Any]:
        return main(chosen, size=size, clip_frames=clip_frames, repeats=repeats)

    return guarded(profile, lambda: override(find_recipe(recipe), set))


if __name__ == "__main__":
    sys.exit(tyro.cli(command, description=__doc__, prog="python -m jobs.profile"))
