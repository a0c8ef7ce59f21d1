"""The relations of two tokens against the formulas, one pair at a time; what they must not depend on; time reversal."""

from __future__ import annotations

from math import copysign, hypot, log, sqrt

import numpy as np
import pytest
import torch

from model.association.links import LinkNetworkConfig
from model.association.links.relations import relations
from model.association.links.tokens import surest, tokens_of
from model.contracts import VideoQueries

CLIPS = 3
QUERIES = 4
FRAMES = 2
CLASSES = 3
EMBEDDING = 5


def drawn(*, videos: int = 1, seed: int = 0, clips: int = CLIPS, queries: int = QUERIES) -> VideoQueries:
    """Queries of which most are seen in both frames, some in one, and one in none."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(videos, clips, queries, FRAMES, 5, generator=generator)
    places[..., 0] *= 0.2
    seen = torch.rand(videos, clips, queries, FRAMES, generator=generator) < 0.8
    seen[:, 0, 0] = False
    return VideoQueries(queries=torch.randn(videos, clips, queries, 6, generator=generator),
                        class_logits=2 * torch.randn(videos, clips, queries, CLASSES + 1, generator=generator),
                        mask_embeddings=torch.randn(videos, clips, queries, EMBEDDING, generator=generator),
                        places=places * seen[..., None],
                        looks=torch.rand(videos, clips, queries, 6, generator=generator))


def sighting(queries: VideoQueries, clip: int, query: int) -> dict:
    """One token, by hand."""
    places = queries.places[0, clip, query].double().numpy()
    logits = queries.class_logits[0, clip, query].double().numpy()
    frames = np.flatnonzero(places[:, 0])
    first, last = (frames[0], frames[-1])
    classes = np.exp(logits[:-1]) / np.exp(logits[:-1]).sum()
    embedding = queries.mask_embeddings[0, clip, query].double().numpy()
    return {"first": clip * FRAMES + first, "last": clip * FRAMES + last, "from": places[last, 1:3],
            "to": places[first, 1:3], "area": places[last, 0], "next_area": places[first, 0],
            "v": (places[last, 1:3] - places[first, 1:3]) / max(last - first, 1), "both": float(last > first),
            "looks": queries.looks[0, clip, query].double().numpy(), "classes": classes,
            "embedding": embedding / np.linalg.norm(embedding),
            "sure": 1 - np.exp(logits[-1]) / np.exp(logits).sum()}


def by_hand(i: dict, j: dict) -> list[float]:
    """The 30 relations in the order in which the network reads them."""
    g = j["first"] - i["last"]
    d = j["to"] - i["from"]
    size = lambda vector: hypot(*vector)                                                            # noqa: E731
    values = [*(4 * d), *(4 * (d - i["v"] * g)), *(4 * (d - j["v"] * g)), *(20 * (i["v"] - j["v"])),
              *(20 * copysign(sqrt(abs(a * b)), a * b) for a, b in zip(i["v"], j["v"])),
              log(i["area"] / j["next_area"]), i["both"], j["both"], g / 4, 1 / g, 10 * (size(i["v"]) + size(j["v"]))]
    for vector in (d, d - i["v"] * g, d - j["v"] * g, d - (i["v"] + j["v"]) * g / 2):
        values.append(log((size(vector) + 0.01) / 0.1))
    values.append(log((size(i["v"] - j["v"]) + 0.003) / 0.1) + 2)
    values += [*(5 * abs(i["looks"] - j["looks"])), float(i["embedding"] @ j["embedding"]),
               float(i["classes"] @ j["classes"]), i["sure"] * j["sure"]]
    return [min(max(value, -3), 3) for value in values]


def tokens(queries: VideoQueries, **settings):
    return tokens_of(queries, mean=torch.zeros(EMBEDDING), deviation=torch.ones(EMBEDDING), **settings)


def test_they_are_the_formulas():
    queries = drawn(seed=3)
    found = tokens(queries)
    pairs = [(a, p, b, q) for a in range(CLIPS) for b in range(a + 1, CLIPS) for p in range(QUERIES)
             for q in range(QUERIES) if queries.places[0, a, p, :, 0].any() and queries.places[0, b, q, :, 0].any()]
    assert len(pairs) > 20
    a, p, b, q = torch.tensor(pairs).T
    zero = torch.zeros_like(a)
    values = relations(found.at(zero, a, p), found.at(zero, b, q))
    expected = [by_hand(sighting(queries, *pair[:2]), sighting(queries, *pair[2:])) for pair in pairs]
    np.testing.assert_allclose(values, expected, atol=2e-4)


def test_a_query_without_a_mask_is_not_sure():
    queries = drawn()
    assert tokens(queries).sure[0, 0, 0] == 0
    assert (tokens(queries).sure[0, 1:] > 0).any()


def test_relations_do_not_depend_on_when_and_where():
    queries = drawn(seed=1)
    moved = queries.places.clone()
    moved[..., 1:3] += 0.25 * (moved[..., :1] > 0)
    elsewhere = VideoQueries(queries=queries.queries, class_logits=queries.class_logits,
                             mask_embeddings=queries.mask_embeddings, places=moved, looks=queries.looks)
    network = LinkNetworkConfig().build(embedding=EMBEDDING)
    torch.testing.assert_close(network(elsewhere).logits, network(queries).logits, atol=1e-4, rtol=0)
    here = tokens(queries)
    later = tokens(queries, start=40)
    one = (torch.tensor([0]), torch.tensor([1]), torch.tensor([1]))
    other = (torch.tensor([0]), torch.tensor([2]), torch.tensor([2]))
    assert torch.equal(relations(here.at(*one), here.at(*other)), relations(later.at(*one), later.at(*other)))


def test_backwards_every_velocity_is_negated_and_every_gap_stays():
    queries = drawn(seed=2)
    turned = VideoQueries(queries=queries.queries.flip(1), class_logits=queries.class_logits.flip(1),
                          mask_embeddings=queries.mask_embeddings.flip(1), places=queries.places.flip(1, 3),
                          looks=queries.looks.flip(1))
    forwards = tokens(queries)
    backwards = tokens(turned)
    seen = forwards.sure > 0
    last_frame = CLIPS * FRAMES - 1
    for ours, theirs in ((forwards.velocity, -backwards.velocity), (forwards.first_place, backwards.last_place),
                         (forwards.first_area, backwards.last_area), (forwards.moves, backwards.moves)):
        assert torch.equal(ours[seen], theirs.flip(1)[seen])
    assert torch.equal(forwards.first_time[seen], last_frame - backwards.last_time.flip(1)[seen])


def test_the_surest_come_first_whatever_their_order():
    found = tokens(drawn(seed=4, queries=6))
    order = surest(found, count=4)
    sure = found.sure.gather(2, order)
    assert (sure.diff(dim=-1) <= 0).all()
    assert torch.equal(sure, found.sure.sort(dim=-1, descending=True).values[..., :4])


def test_queries_without_places_are_refused_by_name():
    queries = drawn()
    bare = VideoQueries(queries=queries.queries, class_logits=queries.class_logits,
                        mask_embeddings=queries.mask_embeddings)
    with pytest.raises(ValueError, match=r"no places and no looks.*jobs\.cache_queries"):
        tokens(bare)


@pytest.mark.parametrize("passes", [1, 2])
def test_a_batch_of_two_equals_two_of_one(passes):
    first = drawn(seed=5)
    second = drawn(seed=6)
    both = VideoQueries(**{name: torch.cat([getattr(first, name), getattr(second, name)])
                           for name in ("queries", "class_logits", "mask_embeddings", "places", "looks")})
    network = LinkNetworkConfig(passes=passes).build(embedding=EMBEDDING)
    links = network(both)
    for position, one in enumerate((first, second)):
        alone = network(one)
        assert torch.equal(links.index[position], alone.index[0])
        torch.testing.assert_close(links.logits[position], alone.logits[0], atol=1e-5, rtol=0)
        assert torch.equal(links.sure[position], alone.sure[0])


def test_unsure_queries_and_those_of_one_clip_are_not_compared():
    links = LinkNetworkConfig(least_sure=0.6).build(embedding=EMBEDDING)(drawn(seed=7, queries=6))
    clip = torch.arange(CLIPS).repeat_interleave(6)
    compared = (links.sure[0, :, None] > 0) & (links.sure[0] > 0) & (clip[:, None] != clip)
    assert compared.any()
    assert ((links.logits[0] != -8) == compared).all()
    assert torch.equal(links.logits, links.logits.transpose(1, 2))
