"""Order the queries of neighbouring clips so that query n is the same object in every clip (near-online MaXTron).

Each clip is compared with the *already aligned* clip before it by the cosine of one embedding per query, and the
best one-to-one assignment of all queries is taken; no query is left out. MaXTron on Video-kMaX compares mask
embeddings, MaXTron on Tube-Link raw decoder queries; the caller chooses (arXiv 2311.18537 v1, section
3.2, and `match_from_embds` in TACJu/MaXTron).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class HungarianConfig:
    """Align queries before merging, as MaXTron does."""

    kind: Literal["hungarian"] = "hungarian"
    overlap: ClassVar[int] = 0          # neighbouring clips share no frame


class QueryAligner:
    """Aligns one video, one `step` per clip. Its only memory is the embeddings of the last clip, in aligned order."""

    def __init__(self) -> None:
        self._previous: Tensor | None = None        # n d, unit length

    @torch.no_grad()
    def step(self, embeddings: Tensor) -> Tensor:
        """embeddings: n d of the next clip -> permutation n: entry i is the query of this clip that takes slot i."""
        if not embeddings.isfinite().all():
            raise ValueError(f"the query embeddings {tuple(embeddings.shape)} hold NaN or infinity and cannot be "
                             "aligned; the segmenter diverged or its checkpoint does not fit")
        current = F.normalize(embeddings.detach().double().cpu(), dim=-1)
        if self._previous is None:
            order = torch.arange(len(current))
        elif self._previous.shape != current.shape:
            raise ValueError(f"this clip has queries {tuple(current.shape)} but the one before it had "
                             f"{tuple(self._previous.shape)}; one segmenter must make all clips of a video")
        else:
            _, assigned = linear_sum_assignment(1 - self._previous @ current.T)
            order = torch.from_numpy(assigned)
        self._previous = current[order]
        return order.to(embeddings.device)


def align_clips(embeddings: Tensor) -> Tensor:
    """embeddings: k n d of all clips of one video, in time -> permutations k n (row 0 is the identity)."""
    aligner = QueryAligner()
    return torch.stack([aligner.step(clip) for clip in embeddings])
