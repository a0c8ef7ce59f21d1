"""Videos that are written can be played; what fails leaves nothing."""

from __future__ import annotations

import av
import numpy as np
import pytest

from pipeline.visualise import video_writer
from pipeline.visualise.video_writer import CODECS, VideoWriter


def decoded(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p"
        return [(frame.to_ndarray(format="rgb24"), frame.time) for frame in container.decode(stream)]


@pytest.mark.parametrize("codec", [name for name, _ in CODECS])
@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1), (30, 33)])
def test_any_size_is_written_and_odd_ones_are_completed(tmp_path, monkeypatch, codec, size):
    monkeypatch.setattr(video_writer, "CODECS", [entry for entry in CODECS if entry[0] == codec])
    with VideoWriter(tmp_path / "a.mp4", fps=5) as writer:
        for shade in (50, 100, 150):
            writer.write(np.full((*size, 3), shade, np.uint8))
    frames = decoded(tmp_path / "a.mp4")
    assert [frame.shape[:2] for frame, _ in frames] == [tuple(side + side % 2 for side in size)] * 3
    assert [round(float(frame.mean())) for frame, _ in frames] == pytest.approx([50, 100, 150], abs=3)
    assert [time for _, time in frames] == pytest.approx([0, 0.2, 0.4])


@pytest.mark.parametrize("fps", [23.976, 29.97, 1, 60, 0.5])
def test_the_frame_rate_is_kept(tmp_path, fps):
    with VideoWriter(tmp_path / "a.mp4", fps=fps) as writer:
        for _ in range(4):
            writer.write(np.zeros((16, 16, 3), np.uint8))
    assert [time for _, time in decoded(tmp_path / "a.mp4")] == pytest.approx([i / fps for i in range(4)], abs=1e-4)


def test_uneven_times_are_kept(tmp_path):
    times = [0.0, 0.04, 0.5, 0.52]
    with VideoWriter(tmp_path / "a.mp4", fps=25) as writer:
        for time in times:
            writer.write(np.zeros((16, 16, 3), np.uint8), time=time)
    assert [time for _, time in decoded(tmp_path / "a.mp4")] == pytest.approx(times, abs=1e-4)


def write(path, frames, *, fps=5, times=None):
    with VideoWriter(path, fps=fps) as writer:
        for index, frame in enumerate(frames):
            writer.write(frame, time=times and times[index])


def black(height=16):
    return np.zeros((height, 16, 3), np.uint8)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"frames": [black()], "fps": 0}, "fps must be above 0"), ({"frames": []}, "no frame was written"),
    ({"frames": [black(), black(18)]}, "frame 1 is 16x18, the video 16x16"),
    ({"frames": [black(), black()], "times": [1.0, 1.0]}, "not after the one before")])
def test_what_cannot_be_a_video_is_refused_and_leaves_neither_a_file_nor_a_part_of_one(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a.mp4", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_keeps_the_old_video(tmp_path):
    write(tmp_path / "a.mp4", [black()])
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(ValueError, match="frame 1"):
        write(tmp_path / "a.mp4", [black(), black(18)])
    assert (tmp_path / "a.mp4").read_bytes() == before
