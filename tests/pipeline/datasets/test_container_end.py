"""A file that ends early is noticed in every format whose headers tell how long it is."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.container_end import missing_bytes
from pipeline.datasets.raw_video import RawVideo, open_video
from pipeline.errors import BadInput

FRAMES = 30
FORMATS = {     # suffix -> format, codec, options of the writer
    "mp4": ("mp4", "libx264", {}), "mov": ("mov", "libx264", {"movflags": "faststart"}),
    "fragments.mp4": ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}), "3gp": ("3gp", "mpeg4", {}),
    "mkv": ("matroska", "libx264", {}), "webm": ("webm", "libvpx", {}), "live.webm": ("webm", "libvpx", {"live": "1"}),
    "avi": ("avi", "mpeg4", {}), "flv": ("flv", "flv1", {}), "wmv": ("asf", "msmpeg4", {}), "gif": ("gif", "gif", {})}
HEADERS = 128                           # bytes: what is cut here is no video of any format
CUT_BETWEEN_FRAMES = ("fragments.mp4", "live.webm", "flv")
CUTS_A_FRAME = 2                        # at most: between two frames, between head and content of a fragment
IN_PACKETS = {  # what is cut between two packets is a shorter intact file
    "ts": ("mpegts", "mpeg2video", {}), "m2ts": ("mpegts", "mpeg2video", {"mpegts_m2ts_mode": "1"}),
    "mpg": ("mpeg", "mpeg2video", {})}


def written(path: Path, container: str, codec: str, options: dict[str, str]) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (FRAMES, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    with av.open(str(path), "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for index, image in enumerate(noise):
            frame = av.VideoFrame.from_ndarray(image).reformat(format=stream.pix_fmt)
            frame.pts = index
            frame.time_base = Fraction(1, 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def unnoticed(path: Path, smallest: int) -> list[int]:
    """The sizes from `smallest` on to which a file can be cut without a byte being missed. The file is lost."""
    sizes = []
    for size in range(path.stat().st_size - 1, smallest - 1, -1):
        os.truncate(path, size)
        if missing_bytes(path) == 0:
            sizes.append(size)
    return sizes


def cuts(path: Path) -> list[Path]:
    """The first 10 %, 20 %, ... of a file, each as a file of its own."""
    content = path.read_bytes()
    parts = [path.with_name(f"{tenth}.{path.name}") for tenth in range(1, 10)]
    for tenth, part in enumerate(parts, 1):
        part.write_bytes(content[:len(content) * tenth // 10])
    return parts


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_cut_of_a_file_is_noticed_and_the_whole_one_is_read(tmp_path, suffix):
    whole = written(tmp_path / f"film.{suffix}", *FORMATS[suffix])
    assert missing_bytes(whole) == 0
    with RawVideo(whole) as video:
        assert [frame.shape for frame in video.frames(0, len(video.frame_names))] == [(64, 64, 3)] * FRAMES
    shorter_intact_files = CUTS_A_FRAME * FRAMES if suffix in CUT_BETWEEN_FRAMES else 0
    assert len(unnoticed(whole, HEADERS)) <= shorter_intact_files


@pytest.mark.parametrize("suffix", IN_PACKETS)
def test_a_cut_inside_a_packet_is_noticed(tmp_path, suffix):
    whole = written(tmp_path / f"film.{suffix}", *IN_PACKETS[suffix])
    assert missing_bytes(whole) == 0
    whole.write_bytes(whole.read_bytes()[:-30])
    assert missing_bytes(whole) > 0


@pytest.mark.parametrize("suffix", IN_PACKETS)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_an_end_of_zeros_as_after_a_power_cut_is_noticed(tmp_path, suffix, share):
    whole = written(tmp_path / f"film.{suffix}", *IN_PACKETS[suffix])
    content = whole.read_bytes()
    kept = int(share * len(content))
    whole.write_bytes(content[:kept] + bytes(len(content) - kept))
    assert len(content) - kept - 400 < missing_bytes(whole) <= len(content) - kept


def test_an_animated_picture_is_a_video_and_a_still_one_has_one_frame(tmp_path):
    whole = written(tmp_path / "film.gif", *FORMATS["gif"])
    assert len(open_video(whole).frame_names) == FRAMES
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "still.GIF")
    with open_video(tmp_path / "still.GIF") as still:
        assert [frame.shape for frame in still.frames(0, 1)] == [(40, 60, 3)]


def test_half_a_webm_is_refused_with_counts_and_can_be_read_up_to_the_cut(tmp_path):
    half = cuts(written(tmp_path / "film.webm", *FORMATS["webm"]))[4]
    with pytest.raises(BadInput, match=r"only [0-9]+ of 30 frames can be decoded \(the file ends [0-9,]+ bytes early\)"
                       ) as error:
        RawVideo(half)
    assert "--set predict.keep_damaged=true" in error.value.cure
    with RawVideo(half, keep_damaged=True) as video:
        assert 0 < len(video.frames(0, len(video.frame_names))) == FRAMES - video.frames_lost


def test_a_flash_file_cut_between_two_tags_ends_before_its_duration(tmp_path):
    whole = written(tmp_path / "film.flv", *FORMATS["flv"])
    content = whole.read_bytes()
    ends = [13]     # of the header and of each tag
    while ends[-1] + 11 < len(content):
        ends.append(ends[-1] + 15 + int.from_bytes(content[ends[-1] + 1:ends[-1] + 4]))
    whole.write_bytes(content[:ends[len(ends) // 2]])
    assert missing_bytes(whole) == 0
    with pytest.raises(BadInput, match=r"it ends after [0-9.]+ of [0-9.]+ seconds"):
        RawVideo(whole)


def test_real_videos_are_complete_and_cut_ones_are_not(real_data):
    for path in sorted((real_data / "raw_videos").glob("*.*")):
        assert missing_bytes(path) == 0, path.name
    assert missing_bytes(real_data / "own_data" / "cut_mp4" / "whole.mp4") == 0
    assert missing_bytes(real_data / "own_data" / "cut_mp4" / "cut.mp4") > 0
    assert missing_bytes(real_data / "raw_videos" / "broken" / "truncated_faststart.mp4") > 0
