"""What lies beside the frames, how frames are named, and what the pictures really are, in every reader."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from model.inference.resize import FixedCanvas
from pipeline.clips import FolderSource, StoredVideoSource, video_clips
from pipeline.errors import BadInput
from pipeline.file_names import is_companion, naturally
from pipeline.images import decode_image, encode_jpeg, image_size
from pipeline.picture_headers import orientation
from pipeline.shards import ShardConfig, ShardSet, make_shards
from pipeline.shards.encode import encode_video
from tests.own_data.worlds import SOURCES, edit
from tests.pipeline.shards.toy_videos import toy_videos

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP")
BY_FOLDER = ("vipseg", "youtube_vis", "vspw categories", "kitti_step categories")     # readers of folders of frames


def frames_of(root: Path, name: str) -> list[Path]:
    """The pictures of the first training video."""
    source = SOURCES[name]
    dataset = source.open(root)
    return [frame.image for frame in dataset.read(dataset.video_ids()[0]).frames]


def picture(format: str, **options) -> bytes:
    """A picture with a corner of its own colour, 40 x 60."""
    image = np.full((40, 60, 3), 90, np.uint8)
    image[:20, :30] = (250, 20, 20)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format, **options)
    return buffer.getvalue()


def test_numbers_in_names_count_as_numbers():
    names = ["frame10", "frame2", "frame1", "frame01", "a²b", "a1b", "", f"x{'9' * 5000}", "x8", "img_9_2", "img_10_1"]
    assert naturally(names) == ["", "a1b", "a²b", "frame01", "frame1", "frame2", "frame10", "img_9_2", "img_10_1", "x8",
                                f"x{'9' * 5000}"]


@pytest.mark.parametrize("name", [".DS_Store", "._00001.jpg", "Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir", ".git"])
def test_companions_are_known(name):
    assert is_companion(name)
    assert not is_companion(f"a{name.lstrip('.')}")


@pytest.mark.parametrize("name", BY_FOLDER)
def test_companions_beside_frames_and_labels_change_nothing(tmp_path, name):
    source = SOURCES[name]
    root = source.write(tmp_path / "world")
    dataset = source.open(root)
    before = [dataset.read(video) for video in dataset.video_ids()]
    for folder in {path.parent for path in root.rglob("*.*") if path.suffix in (".jpg", ".png")}:
        for companion in ("._00000000.jpg", "._00000000.png", ".DS_Store", "Thumbs.db"):
            (folder / companion).write_bytes(b"\0" * 120)
        (folder.parent / "__MACOSX").mkdir(exist_ok=True)
    again = source.open(root)
    assert [again.read(video) for video in again.video_ids()] == before


@pytest.mark.parametrize("name", BY_FOLDER)
def test_frames_without_padded_numbers_are_in_the_order_of_time_in_every_reader(tmp_path, name):
    """The twelve pictures become frame0 ... frame11, labels and jsons too; a json lists them as text sorts them."""
    source = SOURCES[name]
    root = source.write(tmp_path / "world", frames=12)
    old = [path.stem for path in frames_of(root, name)]
    new = {stem: f"frame{index}" for index, stem in enumerate(old)}
    for path in [path for path in root.rglob("*.*") if path.stem in new and path.suffix in (".jpg", ".png")]:
        path.rename(path.with_name(new[path.stem] + path.suffix))
    for path in root.glob("*.json"):
        text = path.read_text()
        for stem, name_now in new.items():
            text = text.replace(f"{stem}.", f"{name_now}.")
        path.write_text(text)
    if source.json == "train.json":
        edit(root / source.json, sort_as_text)
    dataset = source.open(root)
    for video_id in dataset.video_ids():
        video = dataset.read(video_id)
        assert [frame.name for frame in video.frames] == [f"frame{index}" for index in range(12)]
        assert FolderSource(video.frames[0].image.parent).frame_names == tuple(frame.name for frame in video.frames)
    if source.json == "train.json":
        assert video.remarks == {"videos whose frames were put in natural order": 1}


def sort_as_text(content: dict) -> None:
    for video in content["videos"]:
        order = sorted(range(12), key=lambda index: video["file_names"][index])
        video["file_names"] = [video["file_names"][index] for index in order]
        for track in content["annotations"]:
            if track["video_id"] == video["id"]:
                track["segmentations"] = [track["segmentations"][index] for index in order]


def test_masks_move_with_their_frames_when_these_are_put_in_order(tmp_path):
    source = SOURCES["youtube_vis"]
    root = source.write(tmp_path / "world", frames=12)
    before = source.open(root).read("train_00000")
    edit(root / source.json, lambda content: [values.reverse() for video in content["videos"]
                                              for values in (video["file_names"], *(
                                                  track["segmentations"] for track in content["annotations"]
                                                  if track["video_id"] == video["id"]))] and None)
    assert source.open(root).read("train_00000").frames == before.frames


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("turned", range(1, 9))
def test_every_format_is_read_by_its_bytes_and_shown_upright(format, turned):
    exif = Image.Exif()
    exif[0x0112] = turned
    data = picture(format, **({} if format == "BMP" else {"exif": exif}))
    stored = Image.open(io.BytesIO(data))
    upright = np.array(ImageOps.exif_transpose(stored).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data), upright)
    assert image_size(data) == upright.shape[:2]


def xmp(orientation: int, form: str) -> bytes:
    """XMP that holds nothing but an orientation, as an attribute or an element."""
    value = f'tiff:Orientation="{orientation}"/>' if form == "attribute" else \
        f"><tiff:Orientation>{orientation}</tiff:Orientation></rdf:Description>"
    return (f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" {value}</rdf:RDF></x:xmpmeta>').encode()


def picture_with_xmp(format: str, content: bytes) -> bytes:
    if format == "PNG":
        chunk = b"iTXt" + b"XML:com.adobe.xmp" + bytes(5) + content
        data = picture("PNG")
        return data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    if format == "TIFF":
        return picture("TIFF", tiffinfo={700: content})
    return picture(format, xmp=content)


@pytest.mark.parametrize("format", [format for format in FORMATS if format != "BMP"])
@pytest.mark.parametrize("form", ["attribute", "element"])
@pytest.mark.parametrize("turned", [1, 3, 6])
def test_an_orientation_in_xmp_alone_is_applied(format, form, turned):
    data = picture_with_xmp(format, xmp(turned, form))
    stored = decode_image(picture(format)).astype(int)
    expected = {1: stored, 3: stored[::-1, ::-1], 6: np.rot90(stored, -1)}[turned]
    assert image_size(data) == expected.shape[:2]
    assert np.abs(decode_image(data) - expected).max() < 60
    assert orientation(data) == turned


def test_exif_decides_where_xmp_says_something_else():
    exif = Image.Exif()
    exif[0x0112] = 8
    assert orientation(picture("JPEG", exif=exif, xmp=xmp(6, "attribute"))) == 8


def test_exif_that_a_png_holds_as_text_is_applied():
    tiff = b"Exif\0\0II*\0" + struct.pack("<IHHHIH2xI", 8, 1, 0x0112, 3, 1, 6, 0)
    text = b"\nexif\n%8d\n" % len(tiff) + tiff.hex().encode() + b"\n"
    chunk = b"zTXt" + b"Raw profile type exif" + bytes(2) + zlib.compress(text)
    data = picture("PNG")
    data = data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    assert decode_image(data).shape[:2] == image_size(data) == (60, 40)


@pytest.mark.parametrize("data", [b"\0\0\0\x18ftypheic" + bytes(90), b"no picture at all", b"GIF8", b"",
                                  b"RIFF\0\0\0\0WEBPVP8 ", b"\0\0\0\x1cftypavif" + bytes(40), b"II*\0" + bytes(30),
                                  b"BM" + bytes(60), b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_or_damaged_is_named(data):
    for read in (decode_image, image_size):
        with pytest.raises(BadInput) as error:
            read(data)
        assert error.value.cure
    if b"heic" in data:
        assert "HEIC" in error.value.what


@pytest.mark.parametrize(("data", "reason", "message"), [
    (b"P6\n64 40\n255\n", "unknown-format", "no picture that can be read: it starts with b'P6"),
    (b"", "corrupt-image", "the file is empty"), (bytes(500), "corrupt-image", "nothing but zeros"),
    (picture("PNG", save_all=True, append_images=[Image.new("RGB", (60, 40))]), "corrupt-image",
     "an animated PNG with 2 frames")])
def test_the_message_tells_what_the_file_is(data, reason, message):
    for read in (decode_image, image_size):
        with pytest.raises(BadInput, match=message) as error:
            read(data)
        assert error.value.reason == reason


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize(("kind", "layout"), [(3, "H2x"), (4, "I")])
def test_an_orientation_may_be_a_short_or_a_long_number(order, kind, layout):
    sign = "<" if order == "II" else ">"
    tags = struct.pack(f"{sign}HHHI{layout}", 1, 0x0112, kind, 1, 6)
    data = picture("JPEG", exif=b"Exif\0\0" + order.encode() + struct.pack(f"{sign}HI", 42, 8) + tags + bytes(4))
    assert decode_image(data).shape[:2] == image_size(data) == (60, 40)
    assert ImageOps.exif_transpose(Image.open(io.BytesIO(data))).size == (40, 60)


def test_a_picture_that_claims_any_size_takes_no_memory():
    header = bytearray(picture("PNG"))
    with pytest.raises(BadInput, match="60000x60000"):
        decode_image(resized_png(bytes(header), 60_000))


def resized_png(data: bytes, side: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">II", side, side) + data[24:29]
    return data[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


@pytest.mark.parametrize("name", BY_FOLDER)
@pytest.mark.parametrize("format", FORMATS)
def test_frames_of_any_format_named_jpg_become_shards(tmp_path, name, format):
    source = SOURCES[name]
    root = source.write(tmp_path / "world")
    frames = frames_of(root, name)
    for path in frames:
        image = decode_image(path.read_bytes())
        Image.fromarray(image).save(path, format, **({"lossless": True} if format == "WEBP" else {}))
        if format not in ("JPEG", "AVIF"):
            np.testing.assert_array_equal(decode_image(path.read_bytes()), image)
    dataset = source.open(root)
    make_shards(dataset, tmp_path / "shards", ShardConfig(jpeg_quality=100), split="train")
    shards = ShardSet(tmp_path / "shards")
    for path, (jpeg, _) in zip(frames, shards.read(shards.videos[0], 0, 3), strict=True):
        data = path.read_bytes()
        assert jpeg == (data if format == "JPEG" else encode_jpeg(decode_image(data), quality=100))


@pytest.mark.parametrize("name", BY_FOLDER)
def test_an_orientation_that_fits_the_labels_is_applied_and_any_other_is_refused_by_name(tmp_path, name):
    source = SOURCES[name]
    root = source.write(tmp_path / "world")
    first, second, _ = frames_of(root, name)
    dataset = source.open(root)
    video = dataset.video_ids()[0]
    upright = decode_image(first.read_bytes())
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(upright[::-1, ::-1]).save(first, "JPEG", quality=100, exif=exif)
    shown = decode_image(first.read_bytes())
    assert np.abs(shown.astype(int) - upright).mean() < np.abs(shown.astype(int) - upright[::-1, ::-1]).mean() / 2
    encoded = encode_video(dataset, video, ShardConfig(jpeg_quality=100))
    assert encoded.clips[0].members[0][1] == encode_jpeg(shown, quality=100)
    exif[0x0112] = 6
    Image.fromarray(decode_image(second.read_bytes())).save(second, "JPEG", exif=exif)
    with pytest.raises(BadInput, match=r"48x64 pixels once it is turned upright \(EXIF orientation 6\), but .* 64x48"):
        encode_video(dataset, video, ShardConfig())


@pytest.mark.parametrize("name", BY_FOLDER)
@pytest.mark.parametrize("damage", ["dangling link", "folder", "link to a folder"])
def test_one_bad_frame_costs_that_frame(tmp_path, name, damage):
    source = SOURCES[name]
    root = source.write(tmp_path / "world")
    path = frames_of(root, name)[1]
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        os.symlink("nowhere" if damage == "dangling link" else path.parent, path)
    dataset = source.open(root)
    report = make_shards(dataset, tmp_path / "shards", split="train")
    assert (report.videos, report.frames, report.skipped) == (2, 5, {})
    [error] = map(json.loads, (tmp_path / "shards" / "errors.jsonl").read_text().splitlines())
    assert (error["frame"], str(path) in error["message"]) == (path.stem, True)


def test_a_strip_becomes_a_shard_and_a_clip(tmp_path):
    data = toy_videos(tmp_path / "toy", {"a": 2}, height=16, width=1200)
    make_shards(data, tmp_path / "shards", split="train")
    shards = ShardSet(tmp_path / "shards")
    (clip,) = video_clips(StoredVideoSource(shards, shards.videos[0]), 2, FixedCanvas(size=(65, 97)))
    assert clip.real_pixels[0].any(dim=-1).any(dim=-1).all()


def test_an_upright_jpeg_keeps_its_bytes(tmp_path):
    source = SOURCES["youtube_vis"]
    root = source.write(tmp_path / "world")
    (first, *_) = frames_of(root, "youtube_vis")
    first.write_bytes(encode_jpeg(decode_image(first.read_bytes()), quality=80))
    encoded = encode_video(source.open(root), "train_00000", ShardConfig())
    assert encoded.clips[0].members[0][1] == first.read_bytes()
