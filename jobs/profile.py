"""The cost of a recipe's networks: parameters, FLOPs, frames per second and peak memory.

In:     a recipe; no data and no weights. --size and --clip-frames replace the recipe's own, which is the size of a
        720x1280 frame at test time where clips are trained on at sizes of their own.
Out:    a table, and the same numbers as JSON on the last line; no file is written.
Cost:   counting takes seconds and runs no network; measuring runs --repeats clips, on the GPU where there is one.

Parameters are the weights that inference reads. Weights that only training reads (the semantic head, the class heads of
the decoder layers) are listed separately. FLOPs are those of convolutions and matrix products. Attention is counted by
its formula, whichever kernel runs it; a multiplication and its addition count as one, as in papers; norms, activations,
resizing and bilinear sampling are not counted. Time and memory are the segmenter's in float32, without association and
merging.

With 124 classes and the frame sizes of the table, these rules reproduce the published costs of Video-kMaX (arXiv
2304.04694, supplement, table 3; published numbers in brackets):

                  parameters      720x1280, one frame   two frames       375x1242, one frame   two frames
    ResNet-50     56.37 M (56.4)  160.4 G (162)         319.6 G (324)    82.6 G (83)           164.0 G (167)
    Axial-R50-B1  74.18 (74.2)    229.3 (231)           457.4 (461)      117.3 (118)           233.5 (236)
    ConvNeXt-L    231.63 (231.6)  719.1 (715)           1437.0 (1431)    371.7 (370)           742.2 (740)

With the class heads of the decoder layers the networks have 56.56 M and 231.82 M parameters; with those and the 19
classes of KITTI-STEP 56.38 M and 231.63 M, which the table may mean as well. At 721x1281, the next size of the form
1 + 16 k, the FLOPs are 2.5 % higher.

    python -m jobs.profile --recipe vipseg_video_kmax_r50 --size 720 1280 --clip-frames 1 --repeats 0
    python -m jobs.profile --recipe tiny
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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

from jobs.console import say
from jobs.ending import answered, end_process
from jobs.memory import peak_memory
from jobs.models import without_download
from jobs.recipes.schema import Recipe
from jobs.verb import chosen_recipe, guarded
from model.contracts import ClipPrediction, VideoQueries
from model.segmenters import SegmenterConfig

COUNTED = ("parameters: weights that inference reads. FLOPs: convolutions and matrix products, one multiply-add = 1. "
           "Time and memory: the segmenter in float32, without association and merging")


@dataclass(frozen=True, kw_only=True)
class Count:
    """The weights that one pass through a module reads, and its multiply-adds."""

    parameters: dict[str, int]      # weights that are read, by part
    training_only: dict[str, int]   # weights that are not read, by the largest module they fill
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
    """Count the segmenter and the head, measure the segmenter, and print; returns the values of the last line."""
    size = size or recipe.stage_one.input.augment.size or recipe.inference.resize.geometry((720, 1280)).padded
    frames = recipe.stage_one.segmenter_frames if clip_frames is None else clip_frames
    if min(*size, frames) < 1 or repeats < 0:
        raise ValueError(f"size {size}, {frames} frames and {repeats} repeats: size and frames must be at least 1, "
                         "repeats at least 0 (0 counts without measuring)")
    config = without_download(recipe.stage_one.segmenter)
    segmenter, head = count_networks(recipe, config, size=size, frames=frames)
    clips = head_clips(recipe)
    result = {}
    say(f"{recipe.name} at {size[0]}x{size[1]}, clips of {frames}, {config.num_classes} classes", COUNTED,
        *table("segmenter, one clip", segmenter),
        *([] if head is None else table(f"cross-clip head, {clips} clips", head)))
    if repeats:
        result = measure(config, size=size, frames=frames, repeats=repeats)
        say(f"{result['frames_per_second']} frames/s on {result['device']}, {result['seconds_per_clip']} s per clip "
            f"(median of {repeats}), peak memory {result['peak_memory_gib']} GiB")
    return {"recipe": recipe.name, "size": list(size), "clip_frames": frames, "classes": config.num_classes,
            "segmenter": segmenter.to_json(),
            "head": None if head is None else {**head.to_json(), "clips": clips}, **result}


def count_networks(recipe: Recipe, config: SegmenterConfig, *, size: tuple[int, int], frames: int
                   ) -> tuple[Count, Count | None]:
    """The segmenter on one clip of `frames` frames, H W each, and the head, if any, on the recipe's number of clips."""
    with torch.device("meta"):      # weights without numbers; `count` moves them
        segmenter = config.build().eval()
        head = None if recipe.head is None else recipe.head.build().eval()
    with shapes_only():
        clip = torch.zeros(1, frames, 3, *size, dtype=torch.uint8)
        prediction, segmenter_count = count(segmenter, lambda: segmenter(clip))
        if head is None:
            return segmenter_count, None
        _, head_count = count(head, lambda: head_masks(head, prediction, clips=head_clips(recipe)))
    return segmenter_count, head_count


def head_clips(recipe: Recipe) -> int:
    """Clips of a training window of the cross-clip head; frames, where it trains along with a frame detector."""
    return recipe.stage_one.input.clip_frames if recipe.stage_two is None else recipe.stage_two.input.clips


def head_masks(head: nn.Module, prediction: ClipPrediction, *, clips: int) -> Tensor:
    """Mask logits b k n t h w of the head's last layer for a video of `clips` clips like this one."""
    def video(part: Tensor) -> Tensor:
        return repeat(part, "b ... -> b k ...", k=clips)
    queries = VideoQueries(queries=video(prediction.queries), mask_embeddings=video(prediction.mask_embeddings),
                           class_logits=video(prediction.class_logits))
    return head.mask_logits(head(queries)[-1].mask_embeddings, video(prediction.pixel_features))


@contextmanager
def shapes_only() -> Iterator[None]:
    """A context in which tensors have a shape but no numbers, and attention runs as plain matrix products.

    The counter cannot see into every fused attention kernel (on a CPU into none), so the counts would otherwise depend
    on the machine and on the version of torch.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def count(network: nn.Module, run: Callable[[], Any]) -> tuple[Any, Count]:
    """The result of `run`, which calls the network, and its cost. Only valid inside `shapes_only`."""
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
    """Median time of `repeats` clips of random pixels, b = 1, after one clip to warm up unless `repeats` is 1.

    Peak memory is the memory allocated on the GPU, or on a CPU the resident memory of the whole process.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    segmenter = config.build().eval().to(device)
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
    """The lines of a table with one line per part."""
    numbers = counted.to_json()
    parameters = numbers["parameters_m"]
    flops = numbers["gflops"]
    parts = [name for name in dict.fromkeys([*parameters, *flops]) if name != "total"]
    return [f"{title:<32} {'parameters (M)':>15} {'GFLOPs':>12}",
            *(f"  {name:<30} {parameters.get(name, 0):>15.3f} {flops.get(name, 0):>12.3f}"
              for name in (*parts, "total")),
            *(f"  only in training: {name} {number:.3f} M" for name, number in numbers["training_only_m"].items())]


class _Reads(TorchDispatchMode):
    """Collects every parameter that an operation reads, and holds it, so that its id stays unique."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, nn.Parameter):
                self.seen[id(leaf)] = leaf
        return func(*args, **(kwargs or {}))


def _inside(module: nn.Module, by_module: dict[str, int], name: str) -> int:
    """FLOPs of a module, or the sum over its children where it is a list, which is never called itself."""
    if name in by_module:
        return by_module[name]
    return sum(_inside(child, by_module, f"{name}.{leaf}") for leaf, child in module.named_children())


def _unread(module: nn.Module, read: dict[int, Tensor], name: str = "") -> Counter[str]:
    """Weights of the largest modules without any weight in `read`; layers of a list are summed under one name."""
    weights = list(module.parameters())
    if weights and not any(id(weight) in read for weight in weights):
        return Counter({re.sub(r"\.\d+", ".*", name): sum(weight.numel() for weight in weights)})
    unread = Counter({f"{name}.{leaf}": weight.numel() for leaf, weight in module.named_parameters(recurse=False)
                      if id(weight) not in read})
    for leaf, child in module.named_children():
        unread += _unread(child, read, f"{name}.{leaf}".lstrip("."))
    return unread


def command(recipe: str, size: tuple[int, int] | None = None, clip_frames: int | None = None, repeats: int = 5,
            set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()) -> int:
    """Count and measure a recipe's networks.

    Args:
        recipe: name of a recipe, or a .toml file that changes one; an unknown name lists all of them.
        size: height and width of the network input, pixels; the recipe's where not given.
        clip_frames: frames of a clip; the recipe's where not given.
        repeats: clips to measure; 0 only counts.
        set: path.to.field=value, may be given several times.
    """
    def profile(chosen: Recipe) -> dict[str, Any]:
        return main(chosen, size=size, clip_frames=clip_frames, repeats=repeats)

    return guarded(profile, lambda: chosen_recipe(recipe, set))


if __name__ == "__main__":
    end_process(answered(lambda: tyro.cli(command, description=__doc__, prog="python -m jobs.profile")))
