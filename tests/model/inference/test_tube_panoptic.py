"""Tube-Link's panoptic video, clip by clip: the painting rule, the tracks, the released code's defects by switch."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model.association.quasi_dense import QuasiDenseConfig, QuasiDenseTracker
from model.association.tube_linking import TubeLinking, TubeLinkingConfig
from model.contracts import ClipPrediction, Geometry
from model.inference import Aligned, NearOnline, TubePanoptic
from model.inference.waiting import Waiting
from model.labels import VOID, class_of, panoptic_id, track_of
from model.postprocess.instances import TrackConfig, TrackMerger
from model.postprocess.panoptic import PanopticConfig, PanopticMerger
from model.postprocess.resize import MaskResizer
from model.postprocess.semantic import SemanticMerger
from model.postprocess.tube_panoptic import TubePanopticConfig, paint_frames, sure_queries
from tests.model.inference.ways import made, near_online

IS_THING = (True, True, False)
SIZE = (16, 24)
QUERIES = 6
DIM = 16
GEOMETRY = Geometry(source=SIZE, resized=SIZE, padded=SIZE)
STUFF = 5       # the query reserved for the floor


def looks(number: int) -> torch.Tensor:
    return 4 * torch.nn.functional.one_hot(torch.tensor(number), DIM).float()


def clip(*frames: dict[int, tuple[int, int]], identities=range(QUERIES), classes=(0, 0, 1, 0, 0, 2)) -> ClipPrediction:
    """Frames map query -> corner of its square of 4; the floor is the rest. identities: the object each query is."""
    class_logits = torch.full((1, QUERIES, 4), -8.0)
    class_logits[0, torch.arange(QUERIES), torch.tensor(classes)] = 8.0
    masks = torch.full((1, QUERIES, len(frames), *SIZE), -8.0)
    masks[0, STUFF] = 8.0
    for number, frame in enumerate(frames):
        for query, (top, left) in frame.items():
            masks[0, query, number, top:top + 4, left:left + 4] = 8.0
            masks[0, STUFF, number, top:top + 4, left:left + 4] = -8.0
    queries = torch.stack([looks(identity) for identity in identities])[None]
    return ClipPrediction(class_logits=class_logits, mask_logits=masks, queries=queries, mask_embeddings=queries,
                          pixel_features=torch.empty(1, 1, len(frames), *SIZE))


class Plain(TubeLinking):
    """Nothing learned: objects look as their queries say, linked ones more so."""

    def embeddings(self, queries: torch.Tensor) -> torch.Tensor:
        return queries

    def forward(self, queries, reference, *, official_compat=False):
        self.read = reference
        return 2 * queries


def task(*, compat=False, linking=None, **config) -> TubePanoptic:
    return TubePanoptic(TubePanopticConfig(**config), reserved=1, is_thing=IS_THING, geometry=GEOMETRY,
                        linking=linking or Plain(TubeLinkingConfig(dim=DIM, heads=2, ffn=16)),
                        tracker=QuasiDenseTracker(QuasiDenseConfig(official_compat=compat)))


def panoptic(*clips, **options):
    return made([(each, each.mask_logits.shape[2]) for each in clips], task(**options), classes=3)["panoptic"]


def at(merged, frame: int, place: tuple[int, int]) -> tuple[int, int]:
    """Class and track of a pixel."""
    value = int(merged.frames[frame][place])
    return int(class_of(value)), int(track_of(value))


def plain_painting(class_logits, masks, config):
    """The rule written down for one frame. masks: n H W logits at output size. Returns H W query numbers, -1 void."""
    scores, classes = class_logits.softmax(-1).max(-1)
    keep = [query for query in range(len(scores)) if classes[query] < len(IS_THING) and scores[query] > config.score]
    painted = np.full(masks.shape[1:], -1)
    if keep:
        owner = torch.stack([scores[query] * masks[query].sigmoid() for query in keep]).argmax(0)
        for position, query in enumerate(keep):
            owned = owner == position
            inside = masks[query] >= 0
            if owned.any() and inside.any() and owned.sum() / inside.sum() >= config.overlap:
                painted[(owned & inside).numpy()] = query
    return painted


@pytest.mark.parametrize("geometry", [Geometry(source=(30, 40), resized=(30, 40), padded=(32, 64)),
                                      Geometry(source=(75, 100), resized=(30, 40), padded=(32, 64))], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_painting_tile_by_tile_equals_the_formula(seed, geometry):
    generator = torch.Generator().manual_seed(seed)
    config = TubePanopticConfig(score=0.5, overlap=0.6)
    class_logits = 4 * torch.randn(8, 4, generator=generator)
    masks = torch.nn.functional.interpolate(6 * torch.randn(8, 2, 3, 4, generator=generator), size=(8, 16),
                                            mode="bilinear")
    resizer = MaskResizer(geometry, size=(8, 16))
    sure = sure_queries(class_logits, config=config)
    names = np.append(sure.queries.numpy(), -1)
    for frame, painted in enumerate(paint_frames(masks, sure, resizer=resizer, config=config)):
        expected = plain_painting(class_logits, resizer(masks[:, frame]), config)
        assert (names[painted] != expected).mean() < 1e-3       # ties within rounding
        assert len(np.unique(expected)) > 1


def test_objects_keep_their_tracks_when_queries_change_places():
    first = clip({0: (2, 2), 1: (8, 8)}, {0: (2, 4), 1: (8, 8)})
    second = clip({3: (2, 6), 2: (8, 8)}, {3: (2, 8), 2: (8, 8)}, identities=(3, 2, 1, 0, 4, 5),
                  classes=(0, 0, 0, 0, 0, 2))
    merged = panoptic(first, second)
    assert at(merged, 0, (3, 3)) == at(merged, 3, (3, 9)) == (0, 1)
    assert at(merged, 0, (9, 9)) == at(merged, 3, (9, 9)) == (0, 2)
    assert {at(merged, frame, (0, 0)) for frame in range(4)} == {(2, 0)}
    assert set(merged.segments) == {panoptic_id(0, 1), panoptic_id(0, 2), panoptic_id(2, 0)}
    assert merged.queries[panoptic_id(0, 1)] == 0
    assert all(segment.score > 0.99 for segment in merged.segments.values())


def test_an_object_that_was_away_for_a_clip_comes_back_as_itself():
    there = clip({0: (2, 2), 1: (8, 8)})
    away = clip({1: (8, 8)})
    merged = panoptic(there, away, there)
    assert at(merged, 2, (3, 3)) == at(merged, 0, (3, 3))


def test_an_object_that_was_away_too_long_comes_back_as_another():
    there = clip({0: (2, 2), 1: (8, 8)}, {0: (2, 2), 1: (8, 8)})
    away = clip({1: (8, 8)}, {1: (8, 8)})
    for clips, known in ((5, True), (6, False)):
        merged = panoptic(there, *[away] * (clips - 1), there)      # the clips begin two frames apart
        assert (at(merged, -1, (3, 3)) == at(merged, 0, (3, 3))) == known


@pytest.mark.parametrize("waits", [True, False])
def test_in_the_order_of_links_an_object_comes_back_as_itself_however_long_it_was_away(waits):
    there = clip({0: (2, 2), 1: (8, 8)})
    away = clip({1: (8, 8)})
    back = clip({3: (2, 6), 2: (8, 8)}, identities=(3, 2, 1, 0, 4, 5), classes=(0, 0, 0, 0, 0, 2))
    clips = [there, *[away] * 20, back]
    orders = [*[torch.arange(QUERIES)] * 21, torch.tensor([3, 2, 1, 0, 4, 5])]
    painter = TubePanoptic(TubePanopticConfig(), linking=None, tracker=None, is_thing=IS_THING, geometry=GEOMETRY)
    if waits:
        maker = Waiting([painter], order=lambda queries: torch.stack(orders))
    else:
        steps = iter(orders)
        maker = Aligned([painter], order=SimpleNamespace(step=lambda each: next(steps)))
    merged = made([(each, 1) for each in clips], maker, classes=3)["panoptic"]
    assert at(merged, -1, (3, 7)) == at(merged, 0, (3, 3)) == (0, 1)
    assert at(merged, -1, (9, 9)) == at(merged, 0, (9, 9)) == (0, 2)
    tracked = panoptic(*clips)
    assert at(tracked, -1, (3, 7)) != at(tracked, 0, (3, 3))    # the tracker has forgotten it


def test_repeated_frames_are_cut():
    merged = made([(clip({0: (2, 2)}, {0: (2, 2)}), 2), (clip({0: (2, 2)}, {1: (9, 9)}), 1)], task(),
                  classes=3)["panoptic"]
    assert len(merged.frames) == 3
    assert {track_of(owner) for owner in merged.segments} == {0, 1}


def test_a_frame_that_two_clips_share_is_painted_once_and_tracked_twice():
    """Query 3 of the second clip is in the shared frame alone; it takes track 2 all the same, and has it afterwards."""
    first = clip({0: (2, 2)}, {0: (2, 2)}, {0: (2, 2)})
    second = clip({0: (2, 2), 3: (9, 9)}, {0: (3, 3), 4: (9, 16)}, {0: (3, 3)})
    third = clip({3: (9, 9)}, {3: (9, 9)}, {3: (9, 9)})
    merged = panoptic(first, second, third, shared_frames=1)
    assert len(merged.frames) == 7
    assert [at(merged, frame, corner) for frame, corner in ((2, (2, 2)), (3, (6, 6)), (4, (6, 6)))] == [(0, 1)] * 3
    assert at(merged, 2, (10, 10)) == (2, 0)
    assert (at(merged, 3, (10, 17)), at(merged, 5, (10, 10))) == ((0, 3), (0, 2))
    assert len(panoptic(first, second, third).frames) == 9


def test_a_query_that_owns_too_little_of_its_mask_is_dropped_and_its_pixels_stay_void():
    both = clip({0: (2, 2), 1: (2, 3)})             # 12 of 16 pixels are shared; equal scores go to the first
    both.class_logits[0, 0, 0] = 9.0
    merged = panoptic(both)
    assert at(merged, 0, (3, 3)) == (0, 1)
    assert merged.frames[0][3, 6] == VOID           # the column only query 1 had
    assert at(panoptic(both, overlap=0.2), 0, (3, 6)) == (0, 2)


def test_linking_reads_the_things_of_the_clip_before_as_they_were():
    """Released code reads all queries, and after they were linked."""
    for compat, count in ((False, QUERIES - 1), (True, QUERIES)):
        linking = Plain(TubeLinkingConfig(dim=DIM, heads=2, ffn=16))
        each = clip({0: (2, 2)})
        panoptic(each, each, linking=linking, compat=compat)
        assert torch.equal(linking.read, each.queries[:, :count])
        panoptic(each, each, each, linking=linking, compat=compat)
        assert torch.equal(linking.read, (1 + compat) * each.queries[:, :count])


def test_a_real_linking_module_runs_both_ways():
    linking = TubeLinking(TubeLinkingConfig(dim=DIM, heads=2, ffn=16))
    for compat in (False, True):
        merged = panoptic(clip({0: (2, 2)}), clip({0: (2, 3)}), linking=linking, compat=compat)
        assert at(merged, 0, (3, 4))[0] == 0


def test_officially_a_frame_without_things_loses_the_tracks_of_the_frames_before_it():
    """What was painted before the empty frame keeps the number of its query instead of a track."""
    gap = clip({3: (2, 2)}, {}, {4: (8, 8)})
    assert at(panoptic(gap), 0, (3, 3)) == (0, 1)
    official = panoptic(gap, compat=True)
    assert at(official, 0, (3, 3)) == (0, 4)        # query 3, counted from 1
    assert at(official, 2, (9, 9)) == (0, 1)
    nothing = panoptic(clip({3: (2, 2)}, {}), compat=True)
    assert at(nothing, 0, (3, 3)) == (0, 4)


def test_officially_things_absent_from_the_last_frame_make_tracks_slip():
    gone = clip({0: (2, 2), 1: (8, 8), 3: (2, 12)}, {3: (2, 12)})
    right = panoptic(gone)
    official = panoptic(gone, compat=True)
    assert [at(right, 0, place)[1] for place in ((3, 3), (9, 9), (3, 13))] == [1, 2, 3]
    assert [at(official, 0, place)[1] for place in ((3, 3), (9, 9), (3, 13))] == [1, 2, 0]


def test_one_run_gives_panoptic_and_semantic_video():
    clips = [(clip({0: (2, 2), 2: (8, 8)}), 1), (clip({0: (2, 3), 2: (8, 8)}), 1)]
    results = made(iter(clips), task(), SemanticMerger(num_classes=3, geometry=GEOMETRY), classes=3)
    for panoptic_map, classes in zip(results["panoptic"].frames, results["semantic"]):
        np.testing.assert_array_equal(class_of(panoptic_map), classes)


def test_one_near_online_run_gives_tracks_and_panoptic_video():
    clips = [(clip({0: (2, 2), 1: (8, 8)}), 1), (clip({0: (2, 3), 1: (8, 8)}), 1)]

    def mergers():
        return {"tracks": TrackMerger(TrackConfig(), is_thing=IS_THING, geometry=GEOMETRY),
                "panoptic": PanopticMerger(PanopticConfig(), is_thing=IS_THING, geometry=GEOMETRY)}

    alone = mergers()
    results = made(clips, Aligned([NearOnline({name: lambda merger=merger: merger
                                               for name, merger in mergers().items()})]), classes=3)
    tracks = made(clips, Aligned([NearOnline({"tracks": lambda: alone["tracks"]})]), classes=3)
    assert results["tracks"] == tracks["tracks"]
    assert len(results["tracks"]) >= 2
    expected = near_online(clips, merger=alone["panoptic"])
    assert results["panoptic"].segments == expected.segments
    np.testing.assert_array_equal(list(results["panoptic"].frames), list(expected.frames))


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="no clips"):
        made([], task(), classes=3)
    with pytest.raises(ValueError, match="one video"):
        made([(clip({}), 2)], task(), classes=3)
    with pytest.raises(ValueError, match=r"do not fit 5 classes .*right class table"):
        made([(clip({}), 1)], task(), classes=5)


def test_a_stream_keeps_the_tracks_of_its_objects():
    there = clip({0: (2, 2), 1: (8, 8)}, {0: (2, 2), 1: (8, 8)})
    away = clip({1: (8, 8)}, {1: (8, 8)})
    whole = panoptic(there, away, there)
    maker = task()
    parts = [made([(each, 2)], maker, classes=3)["panoptic"] for each in (there, away, there)]
    np.testing.assert_array_equal(np.concatenate([list(part.frames) for part in parts]), list(whole.frames))
    assert [len(part.segments) for part in parts] == [3, 2, 3]
    wrong = replace(clip({}), class_logits=torch.zeros(1, QUERIES, 9))
    with pytest.raises(ValueError, match="right class table"):
        panoptic(wrong)
    with pytest.raises(ValueError, match="not a fraction"):
        TubePanopticConfig(score=1.5)
    broken = clip({0: (2, 2)})
    broken.mask_logits[0, 0, 0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        panoptic(broken)
