"""Label codings are exact in both directions, and damaged files are refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from model.labels import ClassInfo, ClassTable
from pipeline.datasets.id_maps import IdGenerator, ids_in, raw_coding, read_label, rgb_of_ids
from pipeline.errors import BadInput
from pipeline.images import encode_png, ids_from_rgb

CLASSES = ClassTable("test", tuple(ClassInfo(id, f"class{id}", id in (2, 60), (id, 7, 9))
                                   for id in (0, 2, 13, 60, 123)))


def test_rgb_coding_is_exact_for_every_kind_of_id():
    ids = np.random.default_rng(0).integers(0, 1 << 24, size=(31, 17)).astype(np.int32)
    ids[0, :4] = [0, 255, 256, (1 << 24) - 1]
    assert np.array_equal(ids_from_rgb(rgb_of_ids(ids)), ids)


def test_raw_values_have_the_meaning_that_vipseg_defines():
    coding = raw_coding(CLASSES, artefact=True)
    table = coding.ids
    assert table[[0, 200]].tolist() == [0, 0]                         # void, and the artefact
    assert table[[1, 14, 124]].tolist() == [1, 14, 124]               # stuff without instance
    assert table[[1400, 1405]].tolist() == [14, 14]                   # stuff is one segment
    assert table[[6100, 6199, 300]].tolist() == [6100, 6199, 300]     # person 0 and 99, door 0
    assert table[[5, 125, 201, 299, 700, 65535]].tolist() == [-1, 1, -1, -1, -1, -1]
    assert coding.classes[[1, 14, 6100, 300, 3]].tolist() == [0, 2, 3, 1, 1]


def test_in_own_data_every_value_of_the_raw_coding_is_what_its_digits_say():
    """200 is the first instance of the second class, and 101 one of the first, where no class has the number 101."""
    own = ClassTable("own", tuple(ClassInfo(id, f"class{id}", True, (id, 7, 9)) for id in range(4)))
    coding = raw_coding(own, artefact=False)
    assert coding.ids[[100, 101, 199, 200, 400, 499]].tolist() == [100, 101, 199, 200, 400, 499]
    assert coding.classes[[100, 101, 199, 200, 400, 499]].tolist() == [0, 0, 0, 1, 3, 3]
    many = ClassTable("many", tuple(ClassInfo(id, f"class{id}", True, (id, 7, 9)) for id in range(124)))
    assert raw_coding(many, artefact=False).classes[[100, 124, 125, 200]].tolist() == [99, 123, 0, 1]
    last = ClassTable("last", (ClassInfo(654, "last", True, (0, 0, 0)),))
    assert raw_coding(last, artefact=False).ids[65535] == 65535
    with pytest.raises(ValueError, match=r"id 655; .* ids go up to 654"):
        raw_coding(ClassTable("above", (ClassInfo(655, "above", True, (0, 0, 0)),)), artefact=False)


def test_ids_in_equals_sorting_everything():
    rng = np.random.default_rng(1)
    for shape in ((1, 1), (7, 5), (40, 30)):
        ids = rng.integers(0, 6, size=shape).astype(np.int32)
        assert ids_in(ids) == np.unique(ids).tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_labels_are_read_as_stored(tmp_path, dtype):
    raw = np.random.default_rng(2).integers(0, np.iinfo(dtype).max, size=(9, 5)).astype(dtype)
    (tmp_path / "raw.png").write_bytes(encode_png(raw))
    assert np.array_equal(read_label(tmp_path / "raw.png", video="v", indexed=True), raw)


def test_a_palette_stands_for_its_indices_only_in_the_raw_coding(tmp_path):
    indices = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette([0, 0, 0, 10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "palette.png")
    assert np.array_equal(read_label(tmp_path / "palette.png", video="v", indexed=True), indices)
    assert read_label(tmp_path / "palette.png", video="v", indexed=False)[0, 1].tolist() == [10, 20, 30]


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("damage", [lambda b: b[:len(b) // 2], lambda b: b"", lambda b: b"text" + b,
                                    lambda b: b[:60] + bytes([b[60] ^ 255]) + b[61:]],
                         ids=["cut", "empty", "not a png", "flipped byte"])
@pytest.mark.parametrize("palette", [True, False])
def test_a_damaged_label_is_refused_by_name(tmp_path, damage, indexed, palette):
    image = Image.fromarray(np.random.default_rng(3).integers(0, 9, size=(40, 40)).astype(np.uint8))
    if palette:
        image = image.convert("P")
    image.save(tmp_path / "whole.png")
    (tmp_path / "label.png").write_bytes(damage((tmp_path / "whole.png").read_bytes()))
    with pytest.raises(BadInput, match=r"label\.png") as error:
        read_label(tmp_path / "label.png", video="walk", indexed=indexed)
    assert (error.value.reason, error.value.video) == ("corrupt-label", "walk")


def test_generated_ids_are_unique_and_reserve_the_colours_of_stuff():
    generator = IdGenerator(CLASSES, np.random.default_rng(0))
    base = [red | green << 8 | blue << 16 for red, green, blue in (info.color for info in CLASSES.classes)]
    things = [generator.new_id(index) for index in [1, 3] * 40]
    assert things[:2] == [base[1], base[3]]                           # a first instance has the base colour
    assert len(set(things)) == 80
    assert not set(things) & {0, base[0], base[2], base[4]}
    assert [generator.new_id(0), generator.new_id(0)] == [base[0]] * 2
