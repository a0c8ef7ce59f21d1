"""The longest video that a cross-clip head processes at once in a given memory, found by bisection (VITA's table 4).

In:     a recipe with a cross-clip head; no data and no weights.
Out:    the number of frames, printed, and as JSON on the last line; no file is written.
Cost:   about 15 passes of the head, each in a process of its own, over up to twice as many frames as fit.

The memory is that of the GPU where there is one, and otherwise the resident memory of the whole process. It holds both
networks, the queries of all frames and the masks of one clip: pixel features wait in a file, and masks become run
lengths clip by clip. So a video takes little more at a higher resolution. The weights are random. The number is exact
to one percent.

The paper has 2677, 1392 and 741 frames for windows of 3, 6 and 12 frames in 12 GB. There the weights of attention take
most of the memory, and they grow with the window. Here they are never stored as a whole
(`scaled_dot_product_attention`), so the window should matter less; it has not been measured at 12 GB.

    python -m jobs.longest_video --recipe youtube_vis_2019_vita_r50 --gigabytes 12
    python -m jobs.longest_video --recipe youtube_vis_2019_vita_r50_window_12 --gigabytes 12 --size 736 1280
    python -m jobs.longest_video --recipe tiny_vita --gigabytes 0.6 --size 64 64
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context
from typing import Annotated, Any

import torch
import tyro

from jobs.console import say
from jobs.ending import answered, end_process
from jobs.memory import peak_memory
from jobs.models import without_download
from jobs.recipes.schema import Recipe
from jobs.verb import chosen_recipe, guarded
from model.contracts import VideoQueries
from model.precision import autocast

FIRST = 16              # clips of the first attempt
TOLERANCE = 0.01        # part of the result


def main(recipe: Recipe, *, gigabytes: float, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Search, and print every attempt; returns the values of the last line.

    gigabytes: of 10^9 bytes. size: height and width of the network input, pixels; None: that of a 720x1280 frame.
    Raises ValueError for a recipe without a head, and where one clip does not fit.
    """
    if recipe.head is None:
        raise ValueError(f"{recipe.name} has no cross-clip head, so its memory does not grow with a video; choose a "
                         "recipe with stage_two or stage_one.joint")
    size = size or recipe.stage_one.input.augment.size or recipe.inference.resize.geometry((720, 1280)).padded
    frames = recipe.stage_one.segmenter_frames

    def fits(clips: int) -> bool:
        peak = peak_of(recipe, clips=clips, size=size)
        say(f"{clips * frames} frames: {'too many' if peak is None else f'{peak:.2f} GB'}")
        return peak is not None and peak <= gigabytes

    clips = longest(fits)
    if not clips:
        raise ValueError(f"not even one clip of {recipe.name} fits into {gigabytes} GB; give more with --gigabytes")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    say(f"{recipe.name} at {size[0]}x{size[1]}: {clips * frames} frames in {gigabytes} GB on {device}")
    return {"recipe": recipe.name, "size": list(size), "gigabytes": gigabytes, "device": device,
            "max_frames": clips * frames}


def longest(fits: Callable[[int], bool]) -> int:
    """The largest number that fits, to `TOLERANCE`; 0 where 1 does not. What is smaller than a fit has to fit too."""
    low = 0
    high = FIRST
    while fits(high):
        low = high
        high *= 2
    while high - low > max(1, int(TOLERANCE * low)):
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def peak_of(recipe: Recipe, *, clips: int, size: tuple[int, int]) -> float | None:
    """Peak memory in GB of a process that takes a video of so many clips through the head; None: it ran out of memory.

    The process is new, so that nothing is left in its memory from another video.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(take_through, recipe, clips, size).result()


def take_through(recipe: Recipe, clips: int, size: tuple[int, int]) -> float | None:
    """See `peak_of`; in the process itself. The video shows the same frame all the time, which costs as much."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = recipe.head if recipe.inference.head is None else recipe.inference.head.applied_to(recipe.head)
    head = config.build().eval().to(device)
    segmenter = without_download(recipe.stage_one.segmenter).build().eval().to(device)
    pixels = torch.zeros(1, recipe.stage_one.segmenter_frames, 3, *size, dtype=torch.uint8, device=device)
    with (contextlib.suppress(torch.OutOfMemoryError, MemoryError), torch.inference_mode(),
          autocast(device, recipe.inference.precision)):
        clip = segmenter(pixels)
        parts = {field.name: getattr(clip, field.name) for field in fields(VideoQueries)}
        queries = VideoQueries(**{name: None if part is None else torch.stack([part] * clips, dim=1)
                                  for name, part in parts.items()})
        embeddings = head(queries)[-1].mask_embeddings[:, :1]                           # b k n d, k = 1
        head.mask_logits(embeddings, clip.pixel_features[:, None])                      # b k n t h w
        return peak_memory() * 2**30 / 1e9
    return None


def command(recipe: str, gigabytes: float = 12.0, size: tuple[int, int] | None = None,
            set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()) -> int:
    """Find the longest video that fits into memory.

    Args:
        recipe: name of a recipe, or a .toml file that changes one; an unknown name lists all of them.
        gigabytes: memory that may be used, in units of 10^9 bytes.
        size: height and width of the network input, pixels; the recipe's where not given.
        set: path.to.field=value, may be given several times.
    """
    def search(chosen: Recipe) -> dict[str, Any]:
        return main(chosen, gigabytes=gigabytes, size=size)

    return guarded(search, lambda: chosen_recipe(recipe, set))


if __name__ == "__main__":
    end_process(answered(lambda: tyro.cli(command, description=__doc__, prog="python -m jobs.longest_video")))
