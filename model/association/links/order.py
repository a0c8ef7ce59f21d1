"""Orders of the queries of each clip by learned links: of a whole video at once, or clip by clip with flat memory."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.assignment import best_assignment
from model.association.links.clustering import clusters_of
from model.association.links.network import UNLIKELY, LinkNetwork
from model.association.links.tokens import Tokens, surest
from model.contracts import ClipPrediction, VideoQueries

LEAST_SURE = 0.3    # of queries that decide the order; the others fill the slots that are left
REMEMBERED = 16     # last sightings of each slot that are compared with a new clip


@torch.no_grad()
def link_order(network: LinkNetwork, queries: VideoQueries) -> Tensor:
    """queries: all clips of one video, b = 1 -> permutations k n: entry i is the query of the clip that takes slot i.

    Clusters take slots, the largest first. Queries in no cluster fill free slots by the cosine of mask embeddings.
    """
    links = network(queries)
    sure = links.sure[0].double().cpu().numpy()
    kept = np.flatnonzero(sure > LEAST_SURE)
    count = links.index.shape[2]
    clips = kept // count
    scores = links.logits[0].double().cpu().numpy()[np.ix_(kept, kept)] * sure[kept, None] * sure[kept]
    labels = clusters_of(scores, clips)
    embeddings = F.normalize(queries.mask_embeddings[0].double().cpu(), dim=-1).numpy()             # k n d
    slots = slots_of(labels, count=embeddings.shape[1])
    members = links.index[0].flatten().cpu().numpy()[kept]
    order: list[np.ndarray] = []
    for clip, current in enumerate(embeddings):
        here = (clips == clip) & (slots >= 0)
        previous = embeddings[clip - 1][order[-1]] if order else None
        order.append(filled(dict(zip(slots[here].tolist(), members[here].tolist())), previous, current))
    return torch.from_numpy(np.stack(order)).to(queries.queries.device)


def slots_of(labels: np.ndarray, *, count: int) -> np.ndarray:
    """Cluster of each member x -> its slot x, the largest cluster first; -1 from the `count`th cluster on."""
    sizes = np.bincount(labels) if len(labels) else np.zeros(0, int)
    rank = np.full(len(sizes), -1)
    rank[np.argsort(-sizes, kind="stable")[:count]] = np.arange(min(count, len(sizes)))
    return rank[labels]


def filled(taken: dict[int, int], previous: np.ndarray | None, current: np.ndarray) -> np.ndarray:
    """Slot -> query, completed to a permutation n by the cosine with the slots of the clip before.

    previous, current: n d, unit length; previous None: there is no clip before, and queries take free slots in order.
    """
    order = np.full(len(current), -1)
    order[list(taken)] = list(taken.values())
    free = np.flatnonzero(order < 0)
    left = np.setdiff1d(np.arange(len(current)), order)
    if previous is not None:
        _, assigned = best_assignment(previous[free] @ current[left].T, maximize=True)
        left = left[assigned]
    order[free] = left
    return order


def reordered_video(queries: VideoQueries, order: Tensor) -> VideoQueries:
    """The queries of one video with query order[k, i] of clip k in slot i. order: k n."""
    rows = torch.arange(len(order), device=order.device)[:, None]
    return VideoQueries(**{field.name: None if (part := getattr(queries, field.name)) is None
                           else part[:, rows, order] for field in fields(queries)})


class LinkedInTime:
    """The streaming variant, a `QueryOrder`: each clip is assigned once, to slots that remember their last sightings.

    A query that no slot explains takes a free slot, its own number if it can; where none is free, that of the object
    that was not seen for longest.
    """

    def __init__(self, network: LinkNetwork) -> None:
        self.network = network
        self._time = 0                                  # frames so far
        self._memory: Tokens | None = None              # the last sightings of all slots, in time
        self._slots = np.zeros(0, int)                  # of each of them
        self._clips = np.zeros(0, int)                  # of each of them
        self._clip = 0                                  # clips so far
        self._first = torch.zeros(0, 0)                 # x x, their log-odds in the first of two passes
        self._previous: np.ndarray | None = None        # n d, mask embeddings of the last clip in its order

    def step(self, clip: ClipPrediction) -> Tensor:
        """The next clip -> permutation n."""
        return torch.from_numpy(self._order(clip)).to(clip.queries.device)

    @torch.inference_mode()
    def _order(self, clip: ClipPrediction) -> np.ndarray:
        parts = {field.name: getattr(clip, field.name) for field in fields(VideoQueries)}
        queries = VideoQueries(**{name: None if part is None else part[:, None] for name, part in parts.items()})
        tokens = self.network.tokens(queries, start=self._time)
        index = surest(tokens, count=self.network.config.tokens)[0, 0]
        index = index[tokens.sure[0, 0, index] > LEAST_SURE]
        new = tokens.at(torch.zeros_like(index), torch.zeros_like(index), index)
        slots = self._assigned(new, index.cpu().numpy(), count=clip.queries.shape[1])
        self._remember(new, slots)
        self._time += clip.places.shape[2]
        self._clip += 1
        current = F.normalize(clip.mask_embeddings[0].double().cpu(), dim=-1).numpy()
        order = filled(dict(zip(slots.tolist(), index.tolist())), self._previous, current)
        self._previous = current[order]
        return order

    def _assigned(self, new: Tokens, index: np.ndarray, *, count: int) -> np.ndarray:
        """The slot of each of m new tokens, which are queries `index` of n = count."""
        known = np.unique(self._slots)
        sums = np.zeros((len(index), len(known) + len(index)))      # the last columns: an object not seen before
        sums[:, :len(known)] = self._scores(new) @ (self._slots[:, None] == known)
        _, columns = best_assignment(sums, maximize=True)
        slots = np.where(columns < len(known), np.append(known, np.full(len(index), -1))[columns], -1)
        for position in np.flatnonzero(slots < 0):
            slots[position] = self._free_slot(int(index[position]), set(slots.tolist()), count=count)
        return slots

    def _scores(self, new: Tokens) -> np.ndarray:
        """m new tokens -> m x, with each remembered one."""
        shape = (len(new.sure), len(self._slots))
        if not all(shape):
            return np.zeros(shape)
        device = new.sure.device
        later, earlier = torch.cartesian_prod(*map(torch.arange, shape)).to(device).unbind(-1)
        logits = self.network.pairs(self._memory.at(earlier), new.at(later)).view(shape)
        if self.network.config.passes > 1:
            logits = self._second(new, later, earlier, logits)
        scores = logits * self._memory.sure * new.sure[:, None]
        return scores.double().cpu().numpy()

    def _second(self, new: Tokens, later: Tensor, earlier: Tensor, first: Tensor) -> Tensor:
        """The second pass over all that is known so far. later, earlier: p = m x. first: m x, of the first pass."""
        count, known = first.shape
        self._first = F.pad(self._first.to(first), (0, count, 0, count), value=UNLIKELY)
        self._first[known:, :known] = first
        self._first[:known, known:] = first.T
        clip = np.unique(np.append(self._clips, [self._clip] * count), return_inverse=True)[1]
        pairs = (torch.zeros_like(earlier), earlier, known + later)
        tokens = self._memory.joined(new).at(None)      # a batch of one video
        logits = self.network.second(tokens, torch.from_numpy(clip).to(first.device), pairs, self._first[None])
        return logits.view_as(first)

    def _free_slot(self, wanted: int, taken: set[int], *, count: int) -> int:
        """A slot for a new object: `wanted`, else the first that nothing was in, else the one unseen for longest."""
        used = taken | set(self._slots.tolist())
        for slot in (wanted, *range(count)):
            if slot not in used:
                return slot
        last = {int(slot): position for position, slot in enumerate(self._slots) if int(slot) not in taken}
        oldest = min(last, key=last.__getitem__)
        self._keep(self._slots != oldest)
        return oldest

    def _remember(self, new: Tokens, slots: np.ndarray) -> None:
        self._memory = new if self._memory is None else self._memory.joined(new)
        self._slots = np.append(self._slots, slots)
        self._clips = np.append(self._clips, np.full(len(slots), self._clip))
        missing = len(self._slots) - len(self._first)
        self._first = F.pad(self._first, (0, missing, 0, missing), value=UNLIKELY)
        later = np.array([(self._slots[position + 1:] == slot).sum() for position, slot in enumerate(self._slots)])
        self._keep(later < REMEMBERED)

    def _keep(self, kept: np.ndarray) -> None:
        """Forget the other sightings. kept: bool of each remembered one."""
        self._memory = self._memory.at(torch.from_numpy(np.flatnonzero(kept)).to(self._memory.sure.device))
        self._slots = self._slots[kept]
        self._clips = self._clips[kept]
        rows = np.append(kept, np.ones(len(self._first) - len(kept), bool))      # new tokens are behind them
        self._first = self._first[rows][:, rows]
