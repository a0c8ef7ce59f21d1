"""The loss of learned links against plain loops, and the tubes that queries show."""

from __future__ import annotations

import pytest
import torch

from model.association.links import Links
from model.contracts import PixelEvidence, VideoQueries
from model.losses.links import LinkLossConfig, link_loss, shown_tubes, tube_weights

CLIPS = 3
LINKED = 2      # queries of each clip
QUERIES = 4
TUBES = 3


def drawn(seed: int = 0, *, videos: int = 2):
    generator = torch.Generator().manual_seed(seed)
    members = CLIPS * LINKED
    logits = torch.randn(videos, members, members, generator=generator)
    index = torch.stack([torch.stack([torch.randperm(QUERIES, generator=generator)[:LINKED] for _ in range(CLIPS)])
                         for _ in range(videos)])
    tubes = torch.stack([torch.stack([torch.randperm(QUERIES, generator=generator) - 1 for _ in range(CLIPS)])
                         for _ in range(videos)])               # -1 ... 2, each once in a clip
    weights = torch.rand(videos, TUBES, generator=generator)
    sure = torch.ones(videos, members)
    sure[:, 0] = 0
    return Links(index=index, sure=sure, logits=logits + logits.transpose(1, 2)), tubes, weights


def plain(links: Links, tubes, weights, labelled) -> float:
    total = weight = 0.0
    for video in range(len(tubes)):
        shows = [int(tubes[video, clip, links.index[video, clip, place]]) if links.sure[video, clip * LINKED + place]
                 else -1 for clip in range(CLIPS) for place in range(LINKED)]
        for i, tube in enumerate(shows):
            for clip in range(CLIPS):
                if tube < 0 or clip == i // LINKED or not labelled[video, clip]:
                    continue
                others = range(clip * LINKED, (clip + 1) * LINKED)
                values = torch.stack([links.logits[video, i, j] for j in others] + [torch.tensor(0.0)])
                right = next((place for place, j in enumerate(others) if shows[j] == tube), LINKED)
                total += float(weights[video, tube] * (values.logsumexp(0) - values[right]))
                weight += float(weights[video, tube])
    return total / weight


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_mean_over_queries_and_other_clips(seed):
    links, tubes, weights = drawn(seed)
    labelled = torch.tensor([[True, True, True], [True, False, True]])
    loss = link_loss(links, tubes, weights=weights, labelled=labelled)
    assert float(loss) == pytest.approx(plain(links, tubes, weights, labelled), rel=1e-5)


def test_two_passes_cost_the_sum_of_both():
    links, tubes, weights = drawn(2)
    other, _, _ = drawn(3)
    labelled = torch.ones(2, CLIPS, dtype=torch.bool)
    one, two, both = (float(link_loss(part, tubes, weights=weights, labelled=labelled)) for part in (
        links, links._replace(logits=other.logits), links._replace(logits=other.logits, first=links.logits)))
    assert both == pytest.approx(one + two)


def test_true_links_cost_nothing_and_wrong_ones_do():
    links, tubes, weights = drawn(1)
    links = links._replace(sure=torch.ones_like(links.sure))
    shows = tubes.gather(2, links.index).flatten(1)
    same = (shows[:, :, None] == shows[:, None]) & (shows >= 0)[:, None]
    labelled = torch.ones(2, CLIPS, dtype=torch.bool)
    true = links._replace(logits=torch.where(same, 20.0, -20.0))
    assert float(link_loss(true, tubes, weights=weights, labelled=labelled)) < 1e-6
    wrong = links._replace(logits=torch.where(same, -20.0, 20.0))
    assert float(link_loss(wrong, tubes, weights=weights, labelled=labelled)) > 10


def test_a_batch_without_anything_to_link_has_no_loss_and_a_gradient():
    links, tubes, weights = drawn()
    logits = links.logits.clone().requires_grad_()
    loss = link_loss(links._replace(logits=logits), torch.full_like(tubes, -1), weights=weights,
                     labelled=torch.ones(2, CLIPS, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def evidence(tubes: torch.Tensor) -> PixelEvidence:
    """Every pixel of two clips; tubes: 2 p, -1 where there is none."""
    areas = torch.stack([(tubes == tube).sum(-1) for tube in range(TUBES)], -1).float()
    return PixelEvidence(pixel_features=torch.zeros(1, 2, tubes.shape[1], 1), tubes=tubes[None],
                         weights=torch.ones(1, *tubes.shape), classes=(torch.tensor([0, 1, 1]),), areas=(areas,))


def test_queries_show_the_tube_they_cover_and_the_rest_show_none():
    tubes = torch.tensor([[0, 0, 0, 1, 1, -1, -1, -1], [1, 1, 0, 0, 0, 0, 2, 2]])
    covers = torch.tensor([[1, 0, -1, -1], [2, -1, 1, 0]])          # of each query in each clip
    masks = torch.stack([torch.stack([torch.where(tubes[clip] == tube, 9.0, -9.0) if tube >= 0
                                      else torch.full((8,), -9.0) for tube in covers[clip].tolist()])
                         for clip in range(2)])[None]
    logits = torch.zeros(1, 2, QUERIES, 3)
    for clip in range(2):
        for query, tube in enumerate(covers[clip].tolist()):
            logits[0, clip, query, (0, 1, 1)[tube] if tube >= 0 else 2] = 9
    empty = torch.zeros(1, 2, QUERIES, 1)
    queries = VideoQueries(queries=empty, mask_embeddings=empty, class_logits=logits)
    for compete in (True, False):
        assert shown_tubes(queries, masks, evidence(tubes), compete=compete)[0].tolist() == covers.tolist()


def test_a_mask_that_spills_into_the_background_is_less_like_its_tube_where_masks_are_sigmoids():
    tubes = torch.tensor([[0] + [-1] * 39, [0] + [-1] * 39])
    masks = torch.full((1, 2, 1, 40), 9.0)
    logits = torch.tensor([9.0, 0, 0]).expand(1, 2, 1, 3)
    empty = torch.zeros(1, 2, 1, 1)
    queries = VideoQueries(queries=empty, mask_embeddings=empty, class_logits=logits)
    assert shown_tubes(queries, masks, evidence(tubes), compete=True).tolist() == [[[0], [0]]]
    assert shown_tubes(queries, masks, evidence(tubes), compete=False).tolist() == [[[-1], [-1]]]


def test_things_weigh_more_than_stuff():
    seen = evidence(torch.tensor([[0, 1, 2, 2], [0, 1, 2, 2]]))
    weights = tube_weights(seen, torch.tensor([False, True]), config=LinkLossConfig())
    assert weights.tolist() == [[1.0, 4.0, 4.0]]
    with pytest.raises(ValueError, match="neither may be negative"):
        LinkLossConfig(stuff_weight=-1)
