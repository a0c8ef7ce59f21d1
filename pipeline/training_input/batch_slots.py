"""Shared memory into which loader processes write their batches. It is allocated once and then reused.

A batch that is sent through a queue arrives in new pages, which the kernel has to clear and map one by one. That costs
more than decoding the JPEGs (measured at 1280x720: 1100 page faults and twice the processor time per frame).

A slot has room for the largest canvas that a batch may have, and each batch lies at its beginning. The kernel gives
memory only to pages that are written, so a slot costs as much as its largest batch so far.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model.contracts import ClipBatch
from model.labels import ClassTable
from pipeline.errors import BadInput
from pipeline.training_input.targets import ClipTubes, stride_4
from pipeline.training_input.training_clips import ClipPlan, Fetch, InputConfig, make_clip, on_one_canvas

_IN_SLOT = np.zeros(0, np.int16)    # stands for a map that is stored in the slot


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """The part of a batch that goes through the queue: its step, which gives the slot, and data outside the slot."""

    step: int
    canvas: tuple[int, int]         # height, width of its frames
    tubes: tuple[ClipTubes, ...]    # per clip, without their maps
    videos: tuple[str, ...]
    samples: tuple[int, ...]
    refused: int                    # clips in whose place these were drawn


class BatchSlots:
    """One slot for each batch that a DataLoader may have in flight, and one for the batch that it returns.

    A DataLoader requests step s + workers x prefetch just before it returns step s. A slot is therefore overwritten
    only after `take` has copied it. Without loader processes, there is one slot, in ordinary memory.
    """

    def __init__(self, config: InputConfig, *, share: int, sources: Iterable[tuple[int, int]] = ()) -> None:
        """share: clips of a batch. sources: sizes of the videos (height, width), which limit a canvas without crop."""
        self.config = config
        self.share = share
        self.count = config.workers * config.prefetch + 1
        self.largest = config.augment.largest_canvas(sources)
        shared = config.workers > 0
        self.frames, self.real_pixels, self.tubes = (
            [_memory(np.prod(shape), dtype, shared=shared) for _ in range(self.count)]
            for shape, dtype in zip(self._shapes(self.largest), (torch.uint8, torch.bool, torch.int16)))

    def _shapes(self, canvas: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
        """Shapes of frames, real pixels and tubes of a batch."""
        height, width = canvas
        rows, columns = (len(range(side)[wanted]) for side, wanted in zip(canvas, stride_4(canvas)))
        clips = (self.share, self.config.clip_frames)
        return (*clips, 3, height, width), (*clips, height, width), (*clips, rows, columns)

    def _batch(self, step: int, canvas: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Frames, real pixels and tubes of a batch, in its slot."""
        parts = (self.frames, self.real_pixels, self.tubes)
        frames, real_pixels, tubes = (part[step % self.count][:np.prod(shape)].view(shape)
                                      for part, shape in zip(parts, self._shapes(canvas)))
        return frames, real_pixels, tubes

    def put(self, step: int, plans: Sequence[ClipPlan], fetches: Sequence[Fetch],
            classes: ClassTable) -> PackedBatch | BadInput:
        """Write the clips of one step into its slot.

        BadInput is returned, not raised, since an exception that crosses a DataLoader changes its type.
        """
        plans = on_one_canvas(plans, self.config)
        canvas = plans[0].clip.transforms[0].padded
        frames, real_pixels, tubes = (part.numpy() for part in self._batch(step, canvas))
        clips: list[ClipTubes] = []
        try:
            for index, (plan, fetch) in enumerate(zip(plans, fetches)):
                clips.append(make_clip(plan, fetch, classes, self.config, frames=frames[index],
                                       real_pixels=real_pixels[index]))
        except BadInput as error:
            return error
        for out, clip in zip(tubes, clips):
            out[:] = clip.tubes
        return PackedBatch(step=step, canvas=canvas, tubes=tuple(replace(clip, tubes=_IN_SLOT) for clip in clips),
                           videos=tuple(plan.clip.video.video_id for plan in plans),
                           samples=tuple(plan.draw.position for plan in plans),
                           refused=sum(plan.draw.attempt for plan in plans))

    def take(self, packed: PackedBatch | BadInput) -> ClipBatch:
        """Copy a batch out of its slot, into pinned memory with CUDA. Raises a BadInput that `put` returned."""
        if isinstance(packed, BadInput):
            raise packed
        frames, real_pixels, tubes = self._batch(packed.step, packed.canvas)
        return ClipBatch(
            frames=_copy(frames), real_pixels=_copy(real_pixels),
            targets=tuple(replace(clip, tubes=own).targets() for own, clip in zip(tubes.numpy(), packed.tubes)),
            videos=packed.videos, samples=packed.samples)


def _memory(length: int, dtype: torch.dtype, *, shared: bool) -> Tensor:
    """Uninitialised memory. shared: with the processes that are forked from this one."""
    if not shared:
        return torch.empty(length, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, int(length) * dtype.itemsize), dtype=dtype)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.pin_memory() if torch.cuda.is_available() else tensor.clone()
