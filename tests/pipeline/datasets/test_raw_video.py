"""Raw videos give every frame, upright and in chunks; a broken file gives a clear error and never hangs."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.raw_video import CHILD, KEPT, RawVideo, open_video
from pipeline.errors import BadInput
from pipeline.images import encode_jpeg
from pipeline.visualise.video_writer import VideoWriter


def grey(index: int) -> int:
    return 20 + 5 * index


@pytest.fixture
def make_video(tmp_path):
    def make(frames=10, size=(48, 64), times=None, name="made.mp4", grey_of=grey):
        with VideoWriter(tmp_path / name, fps=10) as writer:
            for index in range(frames):
                writer.write(np.full((*size, 3), grey_of(index), np.uint8), time=times and times[index])
        return tmp_path / name
    return make


def shades(frames) -> list[int]:
    return [round(float(frame.mean())) for frame in frames]


def test_a_written_video_reads_back_frame_by_frame(make_video):
    video = RawVideo(make_video(30))
    assert (video.video_id, video.size) == ("made", (48, 64))
    assert video.frame_names[:2] == ("000000", "000001")
    assert video.fps == pytest.approx(10)
    images = video.frames(0, 24) + video.frames(24, 30)
    assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame in images)
    assert shades(images) == pytest.approx([grey(index) for index in range(30)], abs=2)


@pytest.mark.parametrize("spans", [[(5, 9), (0, 3)], [(0, 4), (3, 7), (6, 10)], [(9, 10), (0, 10)], [(2, 2), (2, 3)]])
def test_any_order_of_requests_gives_the_same_frames(make_video, spans):
    with RawVideo(make_video(10)) as video:
        for start, stop in spans:
            assert shades(video.frames(start, stop)) == pytest.approx([grey(i) for i in range(start, stop)], abs=2)


def test_overlapping_requests_do_not_start_again(make_video):
    with RawVideo(make_video(10)) as video:
        video.frames(0, 5)
        first = video._child.pid
        video.frames(3, 8)
        assert video._child.pid == first
        assert len(video._recent) <= KEPT


def test_frames_outside_the_video_are_refused(make_video):
    with RawVideo(make_video(3)) as video, pytest.raises(IndexError, match="which has 3"):
        video.frames(2, 4)


def test_uneven_times_are_kept(make_video):
    times = [0.0, 0.1, 0.15, 0.6, 1.0]
    video = RawVideo(make_video(5, times=times))
    assert video.times == pytest.approx(times, abs=1e-4)
    assert video.fps == pytest.approx(4)


def test_a_video_travels_between_processes(make_video):
    video = RawVideo(make_video(6))
    video.frames(0, 2)
    assert shades(pickle.loads(pickle.dumps(video)).frames(2, 4)) == shades(video.frames(2, 4))


def test_frames_that_an_edit_list_hides_are_not_invented(make_video, tmp_path):
    cut = tmp_path / "cut.mp4"
    with av.open(str(make_video(40))) as source, av.open(str(cut), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                shift = int(1.55 / packet.time_base)
                packet.pts = packet.pts - shift
                packet.dts = packet.dts - shift
                packet.stream = copy
                target.mux(packet)
    with RawVideo(cut) as video:
        assert len(video.frame_names) == 24    # the header counts 40
        assert shades(video.frames(0, 24)) == pytest.approx([grey(index) for index in range(16, 40)], abs=2)
        video.close()
        assert shades(video.frames(20, 22)) == pytest.approx([grey(36), grey(37)], abs=2)


def memory_of(process: int) -> int:
    """The most memory that a process has had, MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024


def test_memory_does_not_grow_with_the_length_of_a_video_nor_with_the_patience_of_its_reader(make_video):
    """Two thousand frames would take 470 MiB. A child that reads ahead without bound takes them in the two seconds."""
    with RawVideo(make_video(2_000, size=(240, 320), grey_of=lambda index: index % 200)) as video:
        before = memory_of(os.getpid())
        video.frames(0, 1)
        child = video._child.pid
        started = memory_of(child)
        time.sleep(2)
        for start in range(1, 1_900, 100):
            video.frames(start, start + 8)
        assert video._child.pid == child
        assert memory_of(child) - started < 30
        assert memory_of(os.getpid()) - before < 60


def alive(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_reader_that_stops_early_leaves_no_child(make_video):
    video = RawVideo(make_video(300, grey_of=lambda index: index % 200))
    video.frames(0, 2)
    child = video._child.pid
    del video
    assert not alive(child)


def test_a_reader_that_is_killed_leaves_no_child(make_video):
    """The pipe breaks, so the child cannot write on. Its file is too long to fit into the pipe."""
    path = make_video(300, size=(120, 160), grey_of=lambda index: index % 200)
    script = ("import os, sys; from pipeline.datasets.raw_video import RawVideo\n"
              "video = RawVideo(sys.argv[1]); video.frames(0, 1); print(video._child.pid, flush=True)\n"
              "os.kill(os.getpid(), 9)")
    process = subprocess.run([sys.executable, "-c", script, str(path)], cwd=CHILD.parents[2], capture_output=True,
                             check=False, timeout=120)
    child = int(process.stdout)
    until = time.monotonic() + 60
    while alive(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(child)


@pytest.mark.parametrize("stamped", [True, False])
def test_a_jump_far_ahead_or_back_leads_to_exactly_that_frame(make_video, stamped):
    with RawVideo(make_video(700, grey_of=lambda index: index % 200)) as video:
        video._stamped &= stamped
        for start in (650, 3, 599, 301, 300):
            video.close()
            assert shades(video.frames(start, start + 2)) == pytest.approx(
                [start % 200, (start + 1) % 200], abs=2)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size * 2 // 3])
    return path


def test_a_cut_video_is_refused_with_counts_or_read_up_to_the_damage(make_video):
    rng = np.random.default_rng(0)
    path = make_video()
    with VideoWriter(path, fps=10) as writer:
        for _ in range(20):
            writer.write(rng.integers(0, 255, (48, 64, 3), np.uint8))
    cut_short(path)
    with pytest.raises(BadInput, match=r"only [0-9]+ of 20 frames can be decoded .*keep_damaged=True") as error:
        RawVideo(path)
    assert error.value.reason == "corrupt-video"
    with RawVideo(path, keep_damaged=True) as video:
        readable = len(video.frame_names)
        assert 0 < readable < 20
        assert video.frames_lost == 20 - readable
        assert len(video.frames(0, readable)) == readable


@pytest.mark.parametrize(("name", "content", "reason"), [
    ("empty.mp4", b"", "empty-file"), ("text.mp4", b"not a video\n" * 100, "corrupt-video"),
    ("picture.mp4", encode_jpeg(np.zeros((16, 16, 3), np.uint8)), "not-a-video")])
def test_a_file_that_is_no_video_is_refused_with_file_and_reason(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=name) as error:
        RawVideo(tmp_path / name)
    assert error.value.reason == reason
    assert error.value.cure


@pytest.mark.parametrize(("suffix", "name"), [(".ppm", "a.ppm"), (".png", "a.mp4")])
def test_a_picture_that_is_no_video_is_named_with_a_cure_that_works_for_it(tmp_path, suffix, name):
    Image.new("RGB", (8, 6)).save(tmp_path / f"picture{suffix}")
    (tmp_path / f"picture{suffix}").rename(tmp_path / name)
    with pytest.raises(BadInput, match=r"a still picture\. Save it as JPEG or PNG; if it is one, let its name end so"):
        open_video(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no video file"):
        RawVideo(tmp_path / "none.mp4")


@pytest.mark.parametrize("name", ["cover.mkv", "cover.mp4"])
def test_a_cover_before_the_film_is_not_the_film(tmp_path, name):
    """Matroska does not keep the mark of a cover."""
    with av.open(str(tmp_path / name), "w") as container:
        cover = container.add_stream("mjpeg", width=32, height=32, pix_fmt="yuvj420p")
        cover.disposition = av.stream.Disposition.attached_pic
        film = container.add_stream("libx264", rate=10, width=64, height=48, pix_fmt="yuv420p")
        for stream, size, frames in ((cover, (32, 32), 1), (film, (48, 64), 5)):
            for index in range(frames):
                picture = av.VideoFrame.from_ndarray(np.full((*size, 3), grey(index), np.uint8), format="rgb24")
                container.mux(stream.encode(picture.reformat(format=stream.pix_fmt)))
            container.mux(stream.encode(None))
    with RawVideo(tmp_path / name) as video:
        assert (video.size, len(video.times)) == ((48, 64), 5)
        assert shades(video.frames(0, 5)) == pytest.approx([grey(index) for index in range(5)], abs=4)


def test_a_file_with_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.float32), format="fltp", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(BadInput, match="no pictures"):
        RawVideo(tmp_path / "sound.mp4")


def test_a_decoder_that_takes_too_long_is_ended(make_video):
    with pytest.raises(BadInput, match=r"longer than 0\.001 seconds") as error:
        RawVideo(make_video(), timeout=0.001)
    assert error.value.reason == "decode-timeout"


def test_the_timer_ends_native_code_that_never_gives_the_interpreter_back():
    spin = "import decode_child as c; c.die_after(0.3); sum(range(10**12))"
    start = time.monotonic()
    process = subprocess.run([sys.executable, "-c", spin], cwd=CHILD.parent, check=False, timeout=20)
    assert process.returncode == -signal.SIGALRM
    assert time.monotonic() - start < 10


def test_a_folder_of_frames_is_a_video_too(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(encode_jpeg(np.full((16, 16, 3), grey(index), np.uint8)))
    video = open_video(tmp_path)
    assert (len(video.frame_names), video.size) == (3, (16, 16))
    assert shades(video.frames(1, 3)) == pytest.approx([grey(1), grey(2)], abs=2)


def known(real_data) -> dict[str, dict]:
    return json.loads((real_data / "raw_videos" / "INFO.json").read_text())


def frames_of(path: Path) -> Iterator[av.VideoFrame]:
    with av.open(str(path)) as container:
        yield from container.decode(video=0)


@pytest.mark.long
def test_every_real_video_gives_all_its_frames_upright(real_data):
    for name, info in known(real_data).items():
        if name.startswith("broken/"):
            continue
        path = real_data / "raw_videos" / name
        with RawVideo(path) as video, av.open(str(path)) as container:
            count = len(video.frame_names)
            assert count == info["decoded_frames"], name
            assert video.size == (info["display_height"], info["display_width"]), name
            assert video.times[0] == pytest.approx(info["first_time"], abs=1e-3), name
            checked = range(min(count, 10))
            expected = [np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                        for _, frame in zip(checked, container.decode(video=0))]
            for frame, other in zip(video.frames(0, len(checked)), expected):
                assert np.array_equal(frame, other), name
            video.close()
            last = [np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                    for index, frame in enumerate(frames_of(path)) if index >= count - 4]
            assert all(map(np.array_equal, video.frames(max(count - 4, 0), count), last)), name


BROKEN = {"audio_only.mp4": "no-video-stream", "corrupted_midway.mp4": "corrupt-video", "zero_byte.mp4": "empty-file",
          "jpeg_renamed.mp4": "not-a-video", "no_timescale.mp4": "corrupt-video", "text_renamed.mp4": "corrupt-video",
          "truncated_faststart.mp4": "corrupt-video", "truncated_no_moov.mp4": "corrupt-video",
          "zero_empty_stsc.mp4": "corrupt-video"}


def test_every_broken_video_is_refused_and_its_sound_part_can_be_kept(real_data):
    for path in sorted((real_data / "raw_videos" / "broken").iterdir()):
        with pytest.raises(BadInput, match=path.name) as error:
            RawVideo(path)
        assert error.value.reason == BROKEN[path.name], path.name
        readable = known(real_data)[f"broken/{path.name}"].get("decoded_frames", 0)
        if "frames can be decoded" in str(error.value):
            with RawVideo(path, keep_damaged=True) as video:
                assert len(video.frames(0, len(video.frame_names))) == readable, path.name
                assert video.frames_lost > 0
