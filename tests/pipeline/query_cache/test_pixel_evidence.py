from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from model.contracts import PixelEvidence, VideoPrediction
from model.losses.cross_clip import CrossClipCriterion, CrossClipLossConfig
from pipeline.query_cache.pixel_evidence import EvidenceConfig, draw_evidence, share_out, tube_areas

STRATEGIES = ("balanced", "mixed", "uniform", "dense")


def clip(seed: int = 0, *, frames: int = 2, size: int = 24) -> np.ndarray:
    """Void on top, a large region, a half, a disc that moves, and a tube of three pixels."""
    rng = np.random.default_rng(seed)
    tubes = np.zeros((frames, size, size), np.int64)
    tubes[:, :, size // 2 + rng.integers(-3, 4):] = 1
    y, x = np.mgrid[:size, :size]
    for frame in range(frames):
        tubes[frame][np.hypot(y - 12 - frame - rng.integers(4), x - 8 - frame) < 4] = 2
    tubes[0, 20, 3:6] = 3
    tubes[:, :3] = -1
    return tubes


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_sample_holds_the_positions_and_tubes_of_its_pixels(strategy):
    tubes = clip()
    positions, drawn, weights = draw_evidence(tubes, rng=np.random.default_rng(0),
                                              config=EvidenceConfig(pixels=100, strategy=strategy))
    count = tubes.size if strategy == "dense" else 100
    assert (positions.shape, drawn.shape, weights.shape) == ((count, 3), (count,), (count,))
    assert (positions.dtype, drawn.dtype, weights.dtype) == (np.int16, np.int32, np.float32)
    assert np.array_equal(tubes[tuple(positions.T.astype(int))], drawn)
    assert len(np.unique(positions, axis=0)) == count, "a pixel was drawn twice"


@pytest.mark.parametrize("strategy", ["balanced", "mixed"])
def test_every_tube_and_void_are_sampled_with_the_weight_of_their_area(strategy):
    for seed in range(20):
        tubes = clip(seed)
        _, drawn, weights = draw_evidence(tubes, rng=np.random.default_rng(seed),
                                          config=EvidenceConfig(pixels=40, strategy=strategy))
        for tube in range(-1, 4):
            assert weights[drawn == tube].sum() == pytest.approx((tubes == tube).sum(), rel=1e-6)


def test_a_small_tube_is_taken_whole_and_the_others_share_the_rest():
    _, drawn, weights = draw_evidence(clip(), rng=np.random.default_rng(0), config=EvidenceConfig(pixels=100))
    assert (drawn == 3).sum() == 3
    assert (weights[drawn == 3] == 1).all()
    assert {(drawn == tube).sum() for tube in (-1, 0, 1, 2)} <= {24, 25}


@pytest.mark.parametrize("strategy", ["balanced", "mixed", "uniform"])
@pytest.mark.parametrize("pixels", [60, 200])
def test_every_pixel_weighs_one_in_expectation(strategy, pixels):
    class EveryDraw:
        """Replaces the generator: over `period` calls, every pixel of a piece is drawn equally often."""
        def __init__(self):
            self.call = 0
            self.period = 1

        def integers(self, sizes):
            self.period = np.lcm.reduce(sizes)
            self.call = self.call + 1
            return self.call % sizes

    tubes = clip()[:, ::2, ::2]
    rng = EveryDraw()
    total = np.zeros(tubes.shape)
    while rng.call < rng.period:
        positions, _, weights = draw_evidence(tubes, rng=rng, config=EvidenceConfig(pixels=pixels, strategy=strategy))
        total[tuple(positions.T.astype(int))] += weights
    assert np.allclose(total / rng.period, 1, rtol=1e-5)


@pytest.mark.parametrize("strategy", ["balanced", "mixed", "uniform"])
def test_weighted_sums_are_right_on_average(strategy):
    tubes = clip()
    runs = 1000
    y, x = np.mgrid[:24, :24]
    value = np.stack([np.sin(x / 3) + y / 24, np.exp(-np.hypot(y - 14, x - 9) / 4)]) + 0.3 * (tubes == 3)
    config = EvidenceConfig(pixels=48, strategy=strategy)
    estimates = []
    for seed in range(runs):
        positions, _, weights = draw_evidence(tubes, rng=np.random.default_rng(seed), config=config)
        estimates.append((value[tuple(positions.T.astype(int))] * weights).sum())
    bound = 4 * np.std(estimates) / runs ** 0.5
    assert abs(np.mean(estimates) - value.sum()) < bound
    assert bound < 0.03 * value.sum(), "a bound this wide would not notice a bias"


@given(areas=st.lists(st.integers(1, 500), min_size=1, max_size=12), pixels=st.integers(12, 400),
       equal_part=st.sampled_from([0.5, 1.0]))
@settings(max_examples=150, deadline=None)
def test_all_pixels_are_shared_out_and_every_tube_gets_some(areas, pixels, equal_part):
    areas = np.array(areas)
    pixels = min(pixels, areas.sum())
    counts = share_out(areas, pixels=pixels, equal_part=equal_part)
    assert counts.sum() == pixels
    assert (counts >= 1).all()
    assert (counts <= areas).all()


def test_the_same_seed_draws_the_same_pixels_and_another_seed_others():
    def draw(seed):
        return draw_evidence(clip(), rng=np.random.default_rng(seed), config=EvidenceConfig(pixels=50))[0]
    assert np.array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))


def test_a_clip_with_too_few_pixels_gives_all_of_them_with_weight_one():
    for strategy in STRATEGIES:
        positions, drawn, weights = draw_evidence(clip(), rng=np.random.default_rng(0),
                                                  config=EvidenceConfig(pixels=99_999, strategy=strategy))
        assert np.array_equal(drawn.reshape(2, 24, 24), clip())
        assert (weights == 1).all()
        assert (positions[-1] == [1, 23, 23]).all()


def test_areas_are_counted_without_void():
    tubes = clip()
    assert tube_areas(tubes, count=5).tolist() == [(tubes == tube).sum() for tube in range(5)]


def test_areas_count_shared_pixels_for_every_tube_that_shares_them():
    tubes = clip()
    tubes[:, 18:] = np.random.default_rng(0).integers(-4, 0, (2, 6, 24))
    areas = tube_areas(tubes, count=4, overlaps=[(0, 2), (1, 3), (0, 1, 3)])
    members = {0: [0, -2, -4], 1: [1, -3, -4], 2: [2, -2], 3: [3, -3, -4]}
    assert areas.tolist() == [np.isin(tubes, numbers).sum() for numbers in members.values()]


def test_every_overlap_gets_its_share():
    tubes = clip()
    tubes[1, 20, 3:5] = -2
    _, drawn, weights = draw_evidence(tubes, rng=np.random.default_rng(0), config=EvidenceConfig(pixels=40))
    assert weights[drawn == -2].tolist() == [1, 1]


def test_more_tubes_than_pixels_are_refused_with_the_cure():
    with pytest.raises(ValueError, match="at least 10"):
        draw_evidence(clip(), rng=np.random.default_rng(0), config=EvidenceConfig(pixels=4))


@pytest.mark.parametrize("wrong", [{"strategy": "fair"}, {"pixels": 0}])
def test_an_impossible_config_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EvidenceConfig(**wrong)


def gradient(clips: list[np.ndarray], config: EvidenceConfig, *, seed: int = 0) -> torch.Tensor:
    """Gradient of the stage-two loss with respect to nearly correct queries of a video and their class logits."""
    generator = torch.Generator().manual_seed(7)
    codes = F.normalize(torch.randn(8, 16, generator=generator), dim=1)             # features of each tube; 4: void
    queries = (codes + 0.3 * torch.randn(len(clips), 8, 16, generator=generator)).requires_grad_()
    class_logits = (torch.randn(1, 8, 6, generator=generator) + 2 * torch.eye(8, 6)).requires_grad_()
    rng = np.random.default_rng(seed)
    evidence = []
    for tubes in clips:
        features = codes[torch.from_numpy(tubes % 5)] + 0.25 * torch.randn(*tubes.shape, 16, generator=generator)
        positions, drawn, weights = draw_evidence(tubes, rng=rng, config=config)
        evidence.append((F.normalize(features, dim=-1)[tuple(positions.T.astype(int))], drawn, weights))
    features, drawn, weights = zip(*evidence)
    pixels = PixelEvidence(
        pixel_features=torch.stack(features)[None], tubes=torch.from_numpy(np.stack(drawn).astype(np.int64))[None],
        weights=torch.from_numpy(np.stack(weights))[None], classes=(torch.tensor([0, 1, 2, 3]),),
        areas=(torch.from_numpy(np.stack([tube_areas(tubes, count=4) for tubes in clips])).float(),))
    masks = 4 * torch.einsum("k n d, b k p d -> b k n p", queries, pixels.pixel_features)
    prediction = VideoPrediction(class_logits=class_logits, mask_embeddings=torch.empty(0), queries=torch.empty(0))
    losses = CrossClipCriterion(CrossClipLossConfig())([prediction], [masks], pixels)
    return torch.cat([part.flatten() for part in torch.autograd.grad(sum(losses.values()), (queries, class_logits))])


def test_the_gradient_of_a_sample_points_where_the_gradient_of_all_pixels_does():
    clips = [clip(seed) for seed in range(4)]
    dense = gradient(clips, EvidenceConfig(strategy="dense"))

    def cosine(strategy, pixels):
        sampled = [gradient(clips, EvidenceConfig(pixels=pixels, strategy=strategy), seed=seed) for seed in range(6)]
        return np.mean([F.cosine_similarity(dense, one, dim=0).item() for one in sampled])

    balanced = cosine("balanced", 256)
    uniform = cosine("uniform", 256)
    assert balanced > 0.9
    assert balanced >= uniform
    assert cosine("balanced", 64) < balanced
    assert cosine("balanced", 64) >= cosine("uniform", 64)
