"""The order of training is a pure function that does not depend on ranks, workers, interruptions or resumes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain, groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training_input.sample_plan import (
    CLIP,
    PASTE,
    PLAN,
    SHARD,
    Draw,
    MixedPlan,
    SamplePlan,
    StreamPlan,
    enough_samples,
    random_stream,
    step_of,
)


def samples(draws) -> list[tuple[int, int]]:
    return [(draw.video, draw.repeat) for draw in draws]


def epoch_of(plan, epoch: int, **ranks) -> list[Draw]:
    first = epoch * plan.steps_per_epoch
    return list(chain.from_iterable(plan.batch(first + step, **ranks) for step in range(plan.steps_per_epoch)))


@given(count=st.integers(1, 30), repeats=st.integers(1, 3), batch=st.integers(1, 6), epoch=st.integers(0, 3))
def test_an_epoch_draws_every_sample_once_but_the_dropped(count, repeats, batch, epoch):
    if count * repeats < batch:
        return
    plan = SamplePlan(count=count, samples_per_video=repeats, global_batch=batch, seed=5)
    drawn = samples(epoch_of(plan, epoch))
    assert len(set(drawn)) == len(drawn) == count * repeats - plan.dropped
    assert set(drawn) <= {(video, repeat) for video in range(count) for repeat in range(repeats)}
    assert plan.dropped < batch


@given(counts=st.integers(1, 3) | st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any).map(tuple),
       clips=st.integers(1, 40))
def test_a_small_set_is_drawn_from_more_often_and_a_large_one_as_it_was(counts, clips):
    enough = enough_samples(counts, videos=4, clips=clips)
    before = sum(counts) if isinstance(counts, tuple) else 4 * counts
    plan = SamplePlan(count=4, samples_per_video=enough, global_batch=clips)
    assert plan.samples >= clips
    assert plan.samples % before == 0
    assert before >= clips if np.array_equal(enough, counts) else plan.samples < clips + before


@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=12), batch=st.integers(1, 6), epoch=st.integers(0, 3),
       world=st.sampled_from([1, 2, 3]), resumed=st.integers(0, 5))
def test_an_epoch_draws_every_window_of_every_video_once_but_the_dropped(counts, batch, epoch, world, resumed):
    batch *= world
    if sum(counts) < batch:
        return
    plan = SamplePlan(count=len(counts), samples_per_video=tuple(counts), global_batch=batch, seed=5)
    drawn = epoch_of(plan, epoch)
    windows = {(video, window) for video, count in enumerate(counts) for window in range(count)}
    assert len(set(samples(drawn))) == len(drawn) == len(windows) - plan.dropped
    assert set(samples(drawn)) <= windows
    assert plan.dropped < batch
    step = epoch * plan.steps_per_epoch + resumed % plan.steps_per_epoch      # a resume anywhere, on other ranks
    shared = chain.from_iterable(plan.batch(step, rank=rank, world=world) for rank in range(world))
    assert list(shared) == drawn[resumed % plan.steps_per_epoch * batch:][:batch]


def test_equal_numbers_of_windows_are_drawn_in_the_order_of_one_number_for_all_videos():
    one, each = (SamplePlan(count=7, samples_per_video=counts, global_batch=4, seed=2) for counts in (3, (3,) * 7))
    assert [one.batch(step) for step in range(12)] == [each.batch(step) for step in range(12)]


@given(counts=st.lists(st.integers(0, 5), min_size=2, max_size=9), epoch=st.integers(0, 2))
def test_streaming_draws_every_window_of_a_shard_in_one_go(counts, epoch):
    counts[0] += 8
    half = len(counts) // 2
    plan = StreamPlan(videos_per_shard=(half, len(counts) - half), samples_per_video=tuple(counts), global_batch=2,
                      workers=2, seed=1)
    drawn = samples(epoch_of(plan, epoch))
    assert len(set(drawn)) == len(drawn) == sum(counts) - plan.dropped
    assert set(drawn) <= {(video, window) for video, count in enumerate(counts) for window in range(count)}
    for worker in range(2):
        own = chain.from_iterable(plan.batch(step) for step in range(worker, plan.steps_per_epoch, 2))
        assert len(list(groupby(draw.video >= half for draw in own))) <= 2


@given(counts=st.lists(st.integers(0, 4), min_size=2, max_size=9).filter(any), cut=st.integers(1, 8),
       epoch=st.integers(0, 2), seed=st.integers(0, 9), as_array=st.booleans())
def test_the_order_is_that_of_the_plain_formula(counts, cut, epoch, seed, as_array):
    """Every sample as an object in a list, shuffled as a whole, or shard by shard. This order must never change."""
    each = np.array(counts) if as_array else tuple(counts)
    every = [(video, repeat) for video, count in enumerate(counts) for repeat in range(count)]
    order = random_stream(seed, PLAN, epoch=epoch).permutation(len(every))
    plan = SamplePlan(count=len(counts), samples_per_video=each, global_batch=1, seed=seed)
    assert samples(epoch_of(plan, epoch)) == [every[sample] for sample in order]

    cut = min(cut, len(counts) - 1)
    parts = [[sample for sample in every if sample[0] < cut], [sample for sample in every if sample[0] >= cut]]
    expected = [parts[shard][sample] for shard in random_stream(seed, PLAN, epoch=epoch).permutation(2).tolist()
                for sample in random_stream(seed, SHARD, epoch=epoch, index=shard).permutation(len(parts[shard]))]
    stream = StreamPlan(videos_per_shard=(cut, len(counts) - cut), samples_per_video=each, global_batch=1, seed=seed)
    assert samples(epoch_of(stream, epoch)) == expected


def test_a_refused_sample_is_replaced_by_any_other_in_its_position_and_always_by_the_same():
    plan = SamplePlan(count=3, samples_per_video=(2, 0, 3), global_batch=2, seed=4)
    draw = plan.batch(1)[1]
    again = plan.redraw(draw)
    assert again == plan.redraw(draw)
    assert (again.position, again.epoch, again.attempt) == (draw.position, draw.epoch, 1)
    assert plan.redraw(again).attempt == 2
    others = Counter(samples(plan.redraw(replace(draw, position=position)) for position in range(4000)))
    assert others.keys() == {(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)}
    assert all(abs(times - 800) < 5 * (4000 * 0.2 * 0.8) ** 0.5 for times in others.values())


def test_redrawn_samples_have_random_numbers_of_their_own():
    """Two refused samples may be replaced by one and the same window."""
    draws = [Draw(position=position, epoch=0, video=1, attempt=attempt) for position in (0, 1) for attempt in (1, 2)]
    draws += [Draw(position=0, epoch=0, video=1), Draw(position=0, epoch=0, video=0, repeat=1)]
    assert len({draw.random(0, CLIP).integers(2**60) for draw in draws}) == 6


def test_positions_count_the_consumed_samples_over_all_epochs():
    plan = SamplePlan(count=7, global_batch=2, seed=1)
    positions = [draw.position for step in range(10) for draw in plan.batch(step)]
    assert positions == list(range(20))
    assert step_of(14, 2) == 7


@pytest.mark.parametrize("world", [2, 3, 4, 5, 8])
def test_the_ranks_together_see_the_global_batch_of_one_rank(world):
    plan = SamplePlan(count=19, global_batch=8, samples_per_video=2, seed=3)
    for step in range(3 * plan.steps_per_epoch):
        shared = [plan.batch(step, rank=rank, world=world) for rank in range(world)]
        assert list(chain.from_iterable(shared)) == plan.batch(step)
        sizes = [len(share) for share in shared]
        assert max(sizes) - min(sizes) <= 1


def test_epochs_and_seeds_have_other_orders():
    plan = SamplePlan(count=40, global_batch=4, seed=0)
    other = SamplePlan(count=40, global_batch=4, seed=1)
    orders = [samples(epoch_of(p, epoch)) for p in (plan, other) for epoch in range(2)]
    assert len({tuple(order) for order in orders}) == 4


@given(videos=st.integers(1, 12), stills=st.integers(1, 12), share=st.floats(0.05, 0.95), batch=st.integers(1, 6),
       repeats=st.integers(1, 2))
def test_a_mix_keeps_its_proportion_and_uses_both_sets_evenly(videos, stills, share, batch, repeats):
    plan = MixedPlan(videos=videos, stills=stills, share=share, global_batch=batch, samples_per_video=repeats, seed=3)
    drawn = [draw for step in range(40) for draw in plan.batch(step)]
    assert [draw.position for draw in drawn] == list(range(40 * batch))
    of_stills = [draw for draw in drawn if draw.video >= videos]
    assert abs(len(of_stills) - 40 * batch * share) <= 1
    for draws, first, count in ((of_stills, videos, stills), ([d for d in drawn if d.video < videos], 0, videos)):
        everything = {(first + video, repeat) for video in range(count) for repeat in range(repeats)}
        epochs = Counter(draw.epoch for draw in draws)
        for epoch, samples_of_epoch in epochs.items():
            seen = samples(draw for draw in draws if draw.epoch == epoch)
            assert len(set(seen)) == len(seen) == samples_of_epoch
            assert set(seen) <= everything
            assert epoch == max(epochs) or set(seen) == everything


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_ranks_together_see_the_mixed_batch_of_one_rank(world):
    plan = MixedPlan(videos=7, stills=11, share=0.4, global_batch=8)
    for step in range(9):
        assert list(chain.from_iterable(plan.batch(step, rank=rank, world=world) for rank in range(world))
                    ) == plan.batch(step)


def test_random_streams_share_no_numbers():
    """With the epoch in the lowest word of the counter, epoch 1 would repeat those of epoch 0, shifted by four."""
    streams = [random_stream(7, purpose, epoch=epoch, index=index).integers(2**63, size=64)
               for purpose in (CLIP, PASTE) for epoch in range(3) for index in (0, 1, 1 << 40)]
    assert len(np.unique(np.concatenate(streams))) == len(streams) * 64


def test_two_samples_of_a_video_get_different_random_numbers():
    draws = [Draw(position=0, epoch=0, video=video, repeat=repeat) for video in (0, 1) for repeat in (0, 1)]
    assert len({draw.random(0, CLIP).integers(2**60) for draw in draws}) == 4


stream_plans = st.builds(
    StreamPlan, videos_per_shard=st.lists(st.integers(0, 9), min_size=1, max_size=6).map(lambda n: (24, *n)),
    global_batch=st.sampled_from([4, 8]), world=st.sampled_from([1, 2, 3, 4]), workers=st.integers(1, 3),
    seed=st.integers(0, 9))


@given(plan=stream_plans, epoch=st.integers(0, 2))
def test_streaming_ranks_and_workers_share_an_epoch_without_overlap(plan, epoch):
    per_rank = [epoch_of(plan, epoch, rank=rank) for rank in range(plan.world)]
    sizes = [len(draws) for draws in per_rank]
    assert max(sizes) - min(sizes) <= plan.steps_per_epoch
    drawn = samples(chain.from_iterable(per_rank))
    assert len(set(drawn)) == len(drawn) == plan.count - plan.dropped
    assert plan.dropped < plan.global_batch * plan.workers


@given(plan=stream_plans)
def test_a_streaming_worker_reads_each_of_its_shards_in_one_go(plan):
    shard_of = np.repeat(np.arange(len(plan.videos_per_shard)), plan.videos_per_shard)
    opened = 0
    for rank in range(plan.world):
        for worker in range(plan.workers):
            draws = chain.from_iterable(plan.batch(step, rank=rank)
                                        for step in range(worker, plan.steps_per_epoch, plan.workers))
            shards = [shard for shard, _ in groupby(shard_of[draw.video] for draw in draws)]
            assert len(set(shards)) == len(shards)
            opened += len(shards)
    assert opened <= sum(1 for n in plan.videos_per_shard if n) + plan.world * plan.workers - 1


@pytest.mark.parametrize(("make", "message"), [
    (lambda: SamplePlan(count=9, global_batch=2).batch(0, world=4), "2 clips .* 4 ranks; .* to at least 4"),
    (lambda: SamplePlan(count=5, global_batch=8), "5 videos x 1 .* samples_per_video to at least 2"),
    (lambda: SamplePlan(count=0, global_batch=8), "holds no video"),
    (lambda: SamplePlan(count=3, samples_per_video=(1, 0, 2), global_batch=8), "3 videos give 3 clips"),
    (lambda: StreamPlan(videos_per_shard=(5, 5), global_batch=8, workers=2), "fewer loader workers"),
    (lambda: StreamPlan(videos_per_shard=(50,), global_batch=8, world=9), "9 ranks"),
    (lambda: SamplePlan(count=5, global_batch=0), "global_batch is 0"),
    (lambda: MixedPlan(videos=5, stills=5, share=1.0, global_batch=2), "share of stills is 1.0"),
    (lambda: MixedPlan(videos=5, stills=0, share=0.5, global_batch=2), "5 videos and 0 stills"),
    (lambda: SamplePlan(count=5, global_batch=2, seed=-1), "seed is -1"),
    (lambda: step_of(9, 4), "9 consumed samples .* another batch size"),
])
def test_impossible_plans_are_refused_with_a_cure(make, message):
    with pytest.raises(ValueError, match=message):
        make()
