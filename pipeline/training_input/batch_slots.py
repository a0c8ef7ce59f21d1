"""Shared memory into which loader processes write their batches. It is allocated once and then reused.

A batch that is sent through a queue arrives in new pages, which the kernel has to clear and map one by one. That costs
more than decoding the JPEGs (measured at 1280x720: 1100 page faults and twice the processor time per frame).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model.contracts import ClipBatch
from model.labels import ClassTable
from pipeline.errors import BadInput
from pipeline.training_input.targets import ClipTubes, stride_4
from pipeline.training_input.training_clips import ClipPlan, Fetch, InputConfig, make_clip

_IN_SLOT = np.zeros(0, np.int16)    # stands for a map that is stored in the slot


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """The part of a batch that goes through the queue: its step, which gives the slot, and data outside the slot."""

    step: int
    tubes: tuple[ClipTubes, ...]    # per clip, without their maps
    videos: tuple[str, ...]
    samples: tuple[int, ...]


class BatchSlots:
    """One slot for each batch that a DataLoader may have in flight, and one for the batch that it returns.

    A DataLoader requests step s + workers x prefetch just before it returns step s. A slot is therefore overwritten
    only after `take` has copied it. Without loader processes, there is one slot, in ordinary memory.
    """

    def __init__(self, config: InputConfig, *, share: int) -> None:
        self.config = config
        self.count = config.workers * config.prefetch + 1
        height, width = config.augment.size
        rows, columns = (len(range(side)[wanted]) for side, wanted in zip((height, width), stride_4((height, width))))
        shape = (self.count, share, config.clip_frames)
        self.frames = torch.empty((*shape, 3, height, width), dtype=torch.uint8)
        self.real_pixels = torch.empty((*shape, height, width), dtype=torch.bool)
        self.tubes = torch.empty((*shape, rows, columns), dtype=torch.int16)
        if config.workers:
            for tensor in (self.frames, self.real_pixels, self.tubes):
                tensor.share_memory_()

    def put(self, step: int, plans: Sequence[ClipPlan], fetches: Sequence[Fetch],
            classes: ClassTable) -> PackedBatch | BadInput:
        """Write the clips of one step into its slot.

        BadInput is returned, not raised, since an exception that crosses a DataLoader changes its type.
        """
        frames, real_pixels, tubes = (tensor[step % self.count].numpy()
                                      for tensor in (self.frames, self.real_pixels, self.tubes))
        clips: list[ClipTubes] = []
        try:
            for index, (plan, fetch) in enumerate(zip(plans, fetches)):
                clips.append(make_clip(plan, fetch, classes, self.config, frames=frames[index],
                                       real_pixels=real_pixels[index]))
        except BadInput as error:
            return error
        for out, clip in zip(tubes, clips):
            out[:] = clip.tubes
        return PackedBatch(step=step, tubes=tuple(replace(clip, tubes=_IN_SLOT) for clip in clips),
                           videos=tuple(plan.clip.video.video_id for plan in plans),
                           samples=tuple(plan.draw.position for plan in plans))

    def take(self, packed: PackedBatch | BadInput) -> ClipBatch:
        """Copy a batch out of its slot, into pinned memory with CUDA. Raises a BadInput that `put` returned."""
        if isinstance(packed, BadInput):
            raise packed
        slot = packed.step % self.count
        return ClipBatch(
            frames=_copy(self.frames[slot]), real_pixels=_copy(self.real_pixels[slot]),
            targets=tuple(replace(clip, tubes=tubes).targets()
                          for tubes, clip in zip(self.tubes[slot].numpy(), packed.tubes)),
            videos=packed.videos, samples=packed.samples)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.pin_memory() if torch.cuda.is_available() else tensor.clone()
