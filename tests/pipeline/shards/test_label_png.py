"""Every reader of PNG takes the id maps of shards. `decode_label` agrees with `decode_png` on what is a picture."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from platform import machine

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from PIL import Image

from pipeline.errors import BadInput
from pipeline.files import digest
from pipeline.images import decode_png, encode_png
from pipeline.shards import label_png
from pipeline.shards.id_runs import map_runs
from pipeline.shards.label_png import LabelEncoder, decode_label, encode_label

MAP = np.repeat(np.arange(24, dtype=np.uint16) * 100, 20).reshape(24, 20)
SIZES = st.tuples(st.integers(1, 30), st.integers(1, 30))


def with_rows(rows: bytes) -> bytes:
    """The PNG of MAP with other rows, whose checksums are right."""
    content = zlib.compress(rows)
    chunk = b"IDAT" + content
    png = encode_label(MAP)
    start = png.index(b"IDAT") - 4
    return b"".join((png[:start], struct.pack(">I", len(content)), chunk, struct.pack(">I", zlib.crc32(chunk)),
                     png[-12:]))


@settings(deadline=None)
@given(st.sampled_from([np.uint8, np.uint16]).flatmap(lambda kind: arrays(kind, SIZES)))
def test_every_reader_gets_the_ids_back(ids):
    data = encode_label(ids)
    for decoded in (decode_label(data), decode_png(data), np.asarray(Image.open(io.BytesIO(data)))):
        assert_array_equal(decoded, ids)
    assert decode_label(data).dtype == ids.dtype
    assert decode_label(data).flags.writeable


@settings(deadline=None)
@given(SIZES.flatmap(lambda size: st.lists(st.sampled_from([np.uint8, np.uint16]).flatmap(
    lambda kind: arrays(kind, size)), min_size=1, max_size=4)))
def test_the_maps_of_a_video_are_encoded_like_each_alone(maps):
    encoder = LabelEncoder(maps[0].shape)
    for ids in maps:
        columns = replace(map_runs(ids.T), size=ids.shape, by_column=True)
        assert encoder.encode(columns) == encoder.encode(map_runs(ids)) == encode_label(ids)


def test_a_map_that_is_a_view_is_encoded_like_its_copy():
    assert encode_label(MAP.T[::2]) == encode_label(MAP.T[::2].copy())


@pytest.mark.skipif(machine() != "x86_64", reason="ISA-L has other code for other processors")
def test_the_bytes_of_a_map_are_those_of_other_machines():
    noise = np.random.default_rng(0).integers(0, 7, (90, 160)).astype(np.uint8)
    blocks = np.kron(noise[:18, :32], np.ones((40, 40), np.uint8))
    assert digest([encode_label(ids).hex() for ids in (MAP, noise, blocks)])[:16] == "eef4107344d516e2"


@pytest.mark.parametrize("image", [MAP, MAP.astype(np.uint8), np.stack([MAP.astype(np.uint8)] * 3, axis=-1)],
                         ids=["two bytes", "one byte", "colours"])
def test_pngs_of_other_writers_are_read_as_by_opencv(image):
    filtered = io.BytesIO()
    Image.fromarray(image).save(filtered, "PNG")
    for data in (encode_png(image), filtered.getvalue()):
        assert_array_equal(decode_label(data), decode_png(data))


def test_the_maps_of_schema_2_need_no_other_decoder(monkeypatch):
    monkeypatch.setattr(label_png, "decode_png", None)
    assert_array_equal(decode_label(encode_png(MAP)), MAP)


@pytest.mark.parametrize("position", [0, 20, 45, -20, -1])
def test_a_changed_byte_is_refused(position):
    data = bytearray(encode_label(MAP))
    data[position] ^= 1
    with pytest.raises(BadInput) as error:
        decode_label(bytes(data))
    assert error.value.reason == "corrupt-label"


@pytest.mark.parametrize("length", [0, 7, 30, 60, -13])
def test_a_cut_map_is_refused(length):
    with pytest.raises(BadInput, match="PNG"):
        decode_label(encode_label(MAP)[:length])


def test_rows_that_do_not_fill_the_picture_are_left_to_the_other_decoder(monkeypatch):
    rows = zlib.decompress(encode_label(MAP)[41:-16])
    assert_array_equal(decode_label(with_rows(rows)), MAP)
    monkeypatch.setattr(label_png, "decode_png", lambda data: "as by OpenCV")
    for other in (rows[:-1], rows + b"\0", b"\1" + rows[1:], b""):
        assert decode_label(with_rows(other)) == "as by OpenCV"


def test_a_picture_that_claims_too_many_pixels_is_refused_before_it_takes_memory():
    header = b"IHDR" + struct.pack(">IIBBBBB", 2**20, 2**20, 16, 0, 0, 0, 0)
    png = encode_label(MAP)
    data = png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
    with pytest.raises(BadInput) as error:
        decode_label(data)
    assert error.value.reason == "too-large"
