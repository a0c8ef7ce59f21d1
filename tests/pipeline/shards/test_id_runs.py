"""Id maps from run lengths and label maps are those of the plain formulas, which decode every mask."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pycocotools import mask as coco

from pipeline.datasets.run_lengths import packed_mask
from pipeline.records import Mask
from pipeline.shards.id_runs import IdRuns, map_runs, mask_borders, mask_runs

SIZE = (13, 17)


def random_masks(rng: np.random.Generator, count: int) -> np.ndarray:
    """Masks n H W: noise, discs, empty and full ones, which overlap."""
    rows, columns = np.mgrid[:SIZE[0], :SIZE[1]]
    kinds = [rng.random(SIZE) < rng.random(), np.hypot(rows - rng.integers(13), columns - rng.integers(17)) < 5,
             np.zeros(SIZE, bool), np.ones(SIZE, bool)]
    return np.stack([kinds[kind] for kind in rng.choice(4, count, p=(0.4, 0.4, 0.1, 0.1))])


def packed(mask: np.ndarray, kind: str) -> Mask:
    """COCO run lengths of a mask as bytes, text, a list, or as readers give them."""
    compressed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    if kind == "bytes":
        return compressed
    if kind == "text":
        return {**compressed, "counts": compressed["counts"].decode()}
    if kind == "read":
        read = packed_mask(packed(mask, "text"), height=SIZE[0], width=SIZE[1])
        return packed(mask, "list") if read is None else read
    flat = mask.ravel(order="F")
    ends = [*(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), flat.size]
    return {"size": list(SIZE), "counts": [0] * bool(flat[0]) + np.diff(ends, prepend=0).tolist()}


class Shared:
    """Ids above 100 for sets of ids, in the order in which they are asked for."""

    def __init__(self) -> None:
        self.id_of: dict[tuple[int, ...], int] = {}

    def __call__(self, ids: tuple[int, ...]) -> int:
        return self.id_of.setdefault(ids, 101 + len(self.id_of))


def plain(masks: dict[int, dict], shared: Shared) -> np.ndarray:
    """Every mask is decoded, and every pixel gets the id of the set of masks over it."""
    ids = sorted(masks)
    covers = np.stack([coco.decode({"size": masks[id]["size"], "counts": masks[id]["counts"]}).astype(bool)
                       for id in ids]).reshape(len(ids), -1)
    groups, group_of = np.unique(covers, axis=1, return_inverse=True)
    values = []
    for group in groups.T:
        over = tuple(id for id, covered in zip(ids, group) if covered)
        values.append(0 if not over else over[0] if len(over) == 1 else shared(over))
    return np.array(values)[group_of.ravel()].reshape(SIZE)


@pytest.mark.parametrize("kind", ["bytes", "text", "list", "read"])
@pytest.mark.parametrize("seed", range(20))
def test_masks_become_the_map_of_the_plain_formula(kind, seed):
    rng = np.random.default_rng(seed)
    drawn = dict(zip(rng.permutation(9).tolist(), random_masks(rng, int(rng.integers(1, 7)))))
    drawn = {id + 1: mask for id, mask in drawn.items()}
    ours = Shared()
    theirs = Shared()
    runs = mask_runs({id: mask_borders(packed(mask, kind), SIZE) for id, mask in drawn.items()}, SIZE, ours)
    expected = plain({id: packed(mask, "bytes") for id, mask in drawn.items()}, theirs)
    assert runs.ids.max() == expected.max()
    assert_array_equal(_as_uint16(runs), expected)
    assert list(ours.id_of.items()) == list(theirs.id_of.items())      # in the same order, so shards keep their bytes
    assert_array_equal(runs.pixels(200), np.bincount(expected.ravel(), minlength=200))


def _as_uint16(runs: IdRuns) -> np.ndarray:
    return replace(runs, ids=runs.ids.astype(np.uint16)).painted()


def test_no_mask_is_a_frame_of_void():
    assert_array_equal(_as_uint16(mask_runs({}, SIZE, Shared())), np.zeros(SIZE))


@pytest.mark.parametrize("counts", [[0, 0, 0, 221], [3, 0, 2, 0, 0, 216], [221], [0, 221], [0, 220, 1, 0]])
def test_runs_of_no_length_are_legal(counts):
    flat = np.repeat(np.arange(len(counts)) % 2, counts)
    runs = mask_runs({5: mask_borders({"counts": counts}, SIZE)}, SIZE, Shared())
    assert_array_equal(_as_uint16(runs), 5 * flat.reshape(SIZE[::-1]).T)


@pytest.mark.parametrize("seed", range(5))
def test_a_map_is_painted_again_from_its_runs(seed):
    ids = np.random.default_rng(seed).integers(0, 1 + 2 * seed, SIZE).astype(np.uint8)
    runs = map_runs(ids)
    assert_array_equal(runs.painted(), ids)
    assert_array_equal(runs.pixels(300), np.bincount(ids.ravel(), minlength=300))


@pytest.mark.parametrize("counts", [
    [], [220], [222], [-1, 222], [2**62, 221], "", "0", "~~~", b"\xff\xfe", "o" * 6 + "1", "Z" * 13,
    coco.encode(np.ones((1000, 1000), np.uint8, order="F"))["counts"]])
def test_counts_that_do_not_fill_the_frame_are_refused_without_memory_for_them(counts):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"they sum to|cannot be read"):
            mask_borders({"counts": counts}, SIZE)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
