"""Run lengths are read to the last run, and refused if they do not fill the frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as run_lengths

from pipeline.datasets.run_lengths import RunLengths, packed_mask, packed_masks, runs_of, runs_of_all


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_runs_are_those_of_the_mask(height, width, share, seed):
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    counts = run_lengths.encode(np.asfortranarray(mask))["counts"].decode()
    flat = np.concatenate([[0], mask.ravel(order="F")])
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)), [mask.size]])
    assert runs_of(counts).tolist() == np.diff(starts).tolist()


def test_runs_of_large_pictures_survive():
    mask = np.zeros((4000, 3000), np.uint8, order="F")
    mask[17, 2000] = 1
    runs = runs_of(run_lengths.encode(mask)["counts"].decode())
    assert runs.tolist() == [4000 * 2000 + 17, 1, mask.size - 4000 * 2000 - 18]


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.one_of(st.text("04PQ_`o1", max_size=8), st.text(max_size=3)), max_size=5))
def test_texts_that_are_decoded_together_give_what_each_gives_alone(texts):
    alone = [runs_of(text) for text in texts]
    together = runs_of_all(texts)
    assert [runs is None for runs in together] == [runs is None for runs in alone]
    assert [runs.tolist() for runs in together if runs is not None] == [
        runs.tolist() for runs in alone if runs is not None]


@pytest.mark.parametrize("seed", range(10))
def test_a_mask_is_the_same_to_coco_whether_its_bytes_were_given_or_are_made(seed):
    rng = np.random.default_rng(seed)
    drawn = run_lengths.encode(np.asfortranarray(rng.random((9, 14)) < rng.random(), np.uint8))
    text = drawn["counts"].decode()
    told = [{"size": [9, 14], "counts": counts} for counts in (text, runs_of(text).tolist())]
    for packed in packed_masks(told, height=9, width=14):
        assert packed == drawn
        assert isinstance(packed, RunLengths)
        assert np.array_equal(run_lengths.decode(packed), run_lengths.decode(drawn))
        assert run_lengths.merge([packed, packed])["counts"] == drawn["counts"]
        assert packed.borders.tolist() == np.cumsum(runs_of(text))[:len(runs_of(text)) // 2 * 2].tolist()


def test_a_mask_that_cannot_be_read_does_not_touch_those_beside_it():
    right = {"size": [2, 2], "counts": "13"}
    packed = packed_masks([right, None, {"size": [2, 2], "counts": "~"}, [1, 2], right], height=2, width=2)
    assert packed[0] == packed[4] == {"size": [2, 2], "counts": b"13"}
    assert (packed[1], packed[3]) == (None, None)
    assert "cannot be read" in str(packed[2])


@pytest.mark.parametrize("counts", [[], [25], [-1, 25], [2**70, 24 - 2**70], [*[2**62] * 4, 24], [True, 23],
                                    [1.5, 22.5]])
def test_numbers_that_are_no_run_lengths_are_refused(counts):
    with pytest.raises(ValueError, match=r"sum to|whole number"):
        packed_mask({"size": [4, 6], "counts": counts}, height=4, width=6)


@pytest.mark.parametrize("form", ["compressed", "uncompressed"])
@pytest.mark.parametrize(("height", "width"), [(5, 6), (4, 7), (3, 6)])
def test_run_lengths_of_another_frame_are_refused_whatever_size_they_claim(form, height, width):
    """COCO's tools would read past the end of the frame, or leave a part of it out."""
    drawn = run_lengths.encode(np.asfortranarray(np.tri(height, width, dtype=np.uint8)))
    counts = drawn["counts"].decode() if form == "compressed" else runs_of(drawn["counts"].decode()).tolist()
    assert packed_mask({"size": [height, width], "counts": counts}, height=height, width=width) == drawn
    with pytest.raises(ValueError, match=f"sum to {height * width} pixels.*a frame has 24"):
        packed_mask({"size": [4, 6], "counts": counts}, height=4, width=6)


@pytest.mark.parametrize("counts", ["", "0o", "~~~"])
def test_text_that_holds_no_run_lengths_is_refused(counts):
    with pytest.raises(ValueError, match="cannot be read; a frame has 24"):
        packed_mask({"size": [4, 6], "counts": counts}, height=4, width=6)
