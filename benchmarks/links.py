"""The order of a video's queries by learned links, against its formulas written out.

The baseline computes the log-odds of every pair at once, and all sums between clusters again before every merge and
every assignment. Sizes: a video of 12 clips with five things among 16 queries (the worlds of `benchmarks.identity`),
and one with 40 things among 128 queries. `LinkedInTime`, which takes a video clip by clip, has a row of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Results
from model.assignment import best_assignment
from model.association.links import LinkedInTime, LinkNetwork, LinkNetworkConfig, link_order
from model.association.links.clustering import LEAST_GAIN, SWEEPS, numbered
from model.association.links.network import UNLIKELY
from model.association.links.order import LEAST_SURE, filled, slots_of
from model.association.links.tokens import surest
from model.contracts import ClipPrediction, VideoQueries

MEASURES = ("model/association/links/clustering.py", "model/association/links/network.py",
            "model/association/links/order.py", "model/association/links/relations.py",
            "model/association/links/tokens.py", "model/association/links/tracks.py")
SIZES = {"toy": {"5 of 16 queries": {"queries": 16, "things": 5, "clips": 6}},
         "full": {"5 of 16 queries": {"queries": 16, "things": 5, "clips": 12},
                  "40 of 128 queries": {"queries": 128, "things": 40, "clips": 12}}}
CHANNELS = 32


def run(size: Mapping[str, Mapping[str, int]], results: Results) -> None:
    """Compare the order of a whole video, and time the one that takes it clip by clip."""
    torch.manual_seed(0)
    networks = {passes: LinkNetworkConfig(passes=passes).build(embedding=CHANNELS).eval() for passes in (1, 2)}
    for network in networks.values():
        with torch.no_grad():
            network.layers[-1].weight.mul_(20)      # a network that is not trained says almost 0 of every pair
    for name, shape in size.items():
        queries = video(**shape)
        results.compare(f"order by links, {name}", ours=partial(link_order, networks[1], queries),
                        baseline=partial(plain_order, networks[1], queries), repeats=3, agree=agree)
        results.add(f"order by links of two passes, {name}, {shape['clips']} clips",
                    milliseconds(partial(link_order, networks[2], queries), results.repeats), "ms")
        for passes, network in networks.items():
            suffix = " of two passes" if passes > 1 else ""
            results.add(f"links{suffix} clip by clip, {name}, {shape['clips']} clips",
                        milliseconds(partial(in_time, network, queries), results.repeats), "ms")


def milliseconds(run_once: Callable[[], object], repeats: int) -> list[float]:
    """How long each of some runs takes. repeats: their number; 0 stands for 5."""
    result = []
    for _ in range(repeats or 5):
        start = time.perf_counter()
        run_once()
        result.append(1e3 * (time.perf_counter() - start))
    return result


def video(*, queries: int, things: int, clips: int) -> VideoQueries:
    """Things in even motion, each with looks of its own; the other queries show nothing."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.zeros(1, clips, queries, 9)
    logits[..., -1] = 8
    logits[:, :, :things, -1] = -3
    times = torch.arange(2 * clips).view(1, clips, 1, 2, 1)
    start = torch.rand(1, 1, queries, 1, 2, generator=generator)
    speed = 0.02 * torch.randn(1, 1, queries, 1, 2, generator=generator)
    areas = torch.rand(1, 1, queries, 1, 1, generator=generator).expand(1, clips, queries, 2, 1)
    places = torch.cat([0.1 + areas, start + speed * times, 0.1 + 0 * areas, 0.1 + 0 * areas], -1)
    embeddings = torch.randn(1, 1, queries, CHANNELS, generator=generator)
    embeddings = embeddings + 0.3 * torch.randn(1, clips, queries, CHANNELS, generator=generator)
    looks = torch.rand(1, 1, queries, 6, generator=generator).expand(1, clips, queries, 6)
    return VideoQueries(queries=embeddings, mask_embeddings=embeddings, class_logits=logits, places=places, looks=looks)


def agree(ours: Tensor, plain: Tensor) -> None:
    """Both give the same permutations."""
    assert torch.equal(ours, plain), f"the orders differ in {int((ours != plain).sum())} of {ours.numel()} slots"


def in_time(network: LinkNetwork, queries: VideoQueries) -> list[Tensor]:
    """The permutations of the clips, one after the other."""
    order = LinkedInTime(network)
    result = []
    for clip in range(queries.queries.shape[1]):
        parts = {field.name: None if (part := getattr(queries, field.name)) is None else part[:, clip]
                 for field in fields(queries)}
        result.append(order.step(ClipPrediction(**parts, mask_logits=None, pixel_features=None)))
    return result


@torch.no_grad()
def plain_order(network: LinkNetwork, queries: VideoQueries) -> Tensor:
    """The formulas of `link_order`, each written out."""
    tokens = network.tokens(queries)
    clips, count = tokens.sure.shape[1:]
    index = surest(tokens, count=count)[0].flatten()
    flat = tokens.at(torch.zeros_like(index), torch.arange(clips).repeat_interleave(count), index)
    first, second = torch.triu_indices(clips * count, clips * count, offset=1)
    values = network.pairs(flat.at(first), flat.at(second))
    linked = (flat.sure[first] > network.config.least_sure) & (flat.sure[second] > network.config.least_sure)
    logits = torch.full((clips * count, clips * count), UNLIKELY)
    logits[first, second] = values.where(linked, UNLIKELY)
    logits[second, first] = logits[first, second]
    kept = (flat.sure > LEAST_SURE).nonzero()[:, 0].numpy()
    sure = flat.sure.double().numpy()
    scores = logits.double().numpy()[np.ix_(kept, kept)] * sure[kept, None] * sure[kept]
    clip_of = kept // count
    labels = plain_clusters(np.where(clip_of[:, None] == clip_of, 0, scores), clip_of)
    slots = slots_of(labels, count=count)
    embeddings = torch.nn.functional.normalize(queries.mask_embeddings[0].double(), dim=-1).numpy()
    order: list[np.ndarray] = []
    for clip, current in enumerate(embeddings):
        here = (clip_of == clip) & (slots >= 0)
        previous = embeddings[clip - 1][order[-1]] if order else None
        order.append(filled(dict(zip(slots[here].tolist(), index[kept[here]].tolist())), previous, current))
    return torch.from_numpy(np.stack(order))


def plain_clusters(scores: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Merges, cuts and sweeps, with all sums between clusters computed anew each time. scores: 0 within a clip."""
    labels = np.arange(len(clips))
    while True:
        members = np.eye(len(clips))[labels]                                    # x c
        sums = members.T @ scores @ members
        together = members.T @ (clips[:, None] == clips) @ members > 0          # they share a clip
        sums[together | (members.sum(0)[:, None] == 0) | (members.sum(0) == 0)] = -np.inf
        one, other = np.unravel_index(sums.argmax(), sums.shape)
        if not sums[one, other] > 0:
            break
        labels[labels == max(one, other)] = min(one, other)
    for _ in range(SWEEPS):
        before = labels.copy()
        for clip in np.unique(clips)[1:]:
            labels = plain_rejoin(scores, labels, late=clips >= clip)
        for clip in np.unique(clips):
            here = np.flatnonzero(clips == clip)
            used = np.unique(labels)
            columns = np.append(used, np.setdiff1d(np.arange(len(labels)), used)[:len(here)])
            sums = scores[here] @ (labels[:, None] == columns)
            members, chosen = best_assignment(sums, maximize=True)
            stay = (columns == labels[here][:, None])
            if sums[members, chosen].sum() - sums[stay].sum() > LEAST_GAIN:
                labels[here] = columns[chosen]
        labels = numbered(labels)
        if (labels == numbered(before)).all():
            break
    return numbered(labels)


def plain_rejoin(scores: np.ndarray, labels: np.ndarray, *, late: np.ndarray) -> np.ndarray:
    """Cut all clusters before the late members and join their parts where that raises the sum."""
    parts = numbered(2 * labels + late)
    sums = np.array([[scores[np.ix_(~late & (parts == front), late & (parts == back))].sum()
                      for back in np.unique(parts)] for front in np.unique(parts)])
    joined = {int(front): int(back) for front, back in zip(*best_assignment(np.maximum(sums, 0), maximize=True))
              if sums[front, back] > 0}
    now = sum(scores[np.ix_(~late & (labels == label), late & (labels == label))].sum() for label in np.unique(labels))
    if sum(sums[front, back] for front, back in joined.items()) - now <= LEAST_GAIN:
        return labels
    for front, back in joined.items():
        parts[parts == back] = front
    return numbered(parts)
