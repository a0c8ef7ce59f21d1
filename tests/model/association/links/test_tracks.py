"""What the second pass over links is told, against plain loops and planted motion, and its equality clip by clip."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from model.association.links import LinkedInTime, LinkNetworkConfig
from model.association.links.network import UNLIKELY
from model.association.links.tracks import facing, partners, with_track_velocity
from model.contracts import VideoQueries
from tests.model.association.links.test_order import in_time, moving
from tests.model.association.links.test_relations import EMBEDDING, tokens

CLIP = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3, 4, 4])      # of 11 tokens
CLIPS = 5


def drawn(seed: int) -> Tensor:
    """Symmetric log-odds 1 x x, UNLIKELY within a clip."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(1, len(CLIP), len(CLIP), generator=generator)
    return torch.where(CLIP[:, None] == CLIP, UNLIKELY, logits + logits.transpose(1, 2))


def plain_share(logits: Tensor, token: int, other: int) -> float:
    """The probability that `other` is the one of its clip that shows the object of `token`."""
    rivals = [position for position in range(len(CLIP)) if CLIP[position] == CLIP[other]]
    odds = logits[0, token, rivals].exp()
    return float(odds[rivals.index(other)] / (odds.sum() + 1))


def plain_partner(logits: Tensor, token: int, clip: int) -> tuple[int, float] | None:
    """The likeliest partner in a clip, seen from both, and its probability; None below one half."""
    if clip == CLIP[token]:
        return None
    mutual = {other: min(plain_share(logits, token, other), plain_share(logits, other, token))
              for other in range(len(CLIP)) if CLIP[other] == clip}
    other = max(mutual, key=mutual.__getitem__)
    return (other, mutual[other]) if mutual[other] > 0.5 else None


@pytest.mark.parametrize("seed", range(4))
def test_partners_and_the_ends_that_face_a_clip_are_those_of_the_plain_rules(seed):
    logits = drawn(seed)
    known = partners(logits, CLIP)
    ends = facing(known, CLIP)
    inner = 0
    for token in range(len(CLIP)):
        here = int(CLIP[token])
        for clip in range(CLIPS):
            partner = plain_partner(logits, token, clip)
            assert (known.probability[0, token, clip] > 0) == (partner is not None)
            if partner:
                assert known.index[0, token, clip] == partner[0]
                assert float(known.probability[0, token, clip]) == pytest.approx(partner[1], abs=1e-5)
            between = range(clip - 1, here, -1) if clip > here else range(clip + 1, here)
            nearest = next((found for step in between if (found := plain_partner(logits, token, step))), (token, 0.0))
            inner += nearest[0] != token
            assert ends.index[0, token, clip] == nearest[0]
            assert float(ends.probability[0, token, clip]) == pytest.approx(nearest[1], abs=1e-5)
    assert inner


def test_what_is_seen_in_one_frame_of_a_clip_takes_the_velocity_of_its_track():
    queries, shows = moving(clips=4)
    places = queries.places.clone()
    places[:, 1, :, 0] = 0      # in clip 1, nothing is seen in its first frame
    seen = tokens(VideoQueries(**{field.name: places if field.name == "places" else getattr(queries, field.name)
                                  for field in fields(queries)}))
    count = shows.shape[1]
    clip = torch.arange(4).repeat_interleave(count)
    flat = seen.at(torch.tensor([[0]]), clip[None], torch.arange(count).repeat(4)[None])
    thing = shows.flatten()
    same = (thing[:, None] == thing) & (thing >= 0) & (clip[:, None] != clip)
    known = partners(torch.where(same, 9.0, UNLIKELY)[None], clip)
    moved = with_track_velocity(flat, known, clip)
    alone = (clip == 1) & (thing >= 0)
    assert alone.any()
    assert not flat.moves[0, alone].any()
    torch.testing.assert_close(moved.velocity[0, alone], torch.tensor([[0.0, 0.02]]).expand(int(alone.sum()), 2),
                               atol=1e-4, rtol=0)
    assert (moved.moves[0, alone] == 1).all()
    assert torch.equal(moved.velocity[0, ~alone], flat.velocity[0, ~alone])


class Recorded(LinkedInTime):
    """Keeps the scores of every step."""

    def _scores(self, new):
        self.scores = [*getattr(self, "scores", []), super()._scores(new)]
        return self.scores[-1]


@pytest.mark.parametrize("passes", [1, 2])
def test_clip_by_clip_a_new_token_is_scored_as_in_a_video_that_ends_there(passes):
    torch.manual_seed(0)
    network = LinkNetworkConfig(passes=passes, tokens=4).build(embedding=EMBEDDING).eval()
    with torch.no_grad():
        network.layers[-1].weight.mul_(30)      # an untrained network says almost 0 of every pair
    queries, _ = moving(clips=5, queries=24)
    linked = Recorded(network)
    in_time(linked, queries)
    for clip in range(1, 5):
        until = VideoQueries(**{field.name: getattr(queries, field.name)[:, :clip + 1] for field in fields(queries)})
        with torch.no_grad():
            links = network(until)
        scores = (links.logits[0] * links.sure[0] * links.sure[0, :, None]).double().numpy()
        assert links.sure.min() > 0.3
        assert linked.scores[clip] == pytest.approx(scores[4 * clip:4 * (clip + 1), :4 * clip], abs=1e-4)
    assert passes == 1 or (links.logits - links.first).abs().max() > 0.1


def test_another_number_of_passes_is_refused():
    with pytest.raises(ValueError, match="passes=3: give 1, or 2"):
        LinkNetworkConfig(passes=3)
