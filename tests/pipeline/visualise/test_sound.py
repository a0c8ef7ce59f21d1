"""The sound of a video is in its overlay, at the same times; what cannot be read costs the sound alone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.visualise.sound import add_sound
from pipeline.visualise.video_writer import VideoWriter

RATE = 48_000
FPS = 10


def film(path: Path, container: str, pictures: str, sound: str, *, seconds: int = 4) -> Path:
    """A video with a beep of 0.2 seconds at the start of every second."""
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(pictures, rate=FPS)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        voice = file.add_stream(sound, rate=RATE)
        voice.layout = "mono"
        times = np.arange(RATE * seconds) / RATE
        tone = np.where(times % 1 < 0.2, np.sin(2 * np.pi * 440 * times), 0).astype(np.float32)
        resampler = av.AudioResampler(format=voice.codec_context.format, layout="mono", rate=RATE)
        for start in range(0, len(tone), 1024):
            part = av.AudioFrame.from_ndarray(tone[None, start:start + 1024], format="fltp", layout="mono")
            part.rate = RATE
            part.pts = start
            part.time_base = Fraction(1, RATE)
            for frame in resampler.resample(part):
                file.mux(voice.encode(frame))
        file.mux(voice.encode(None))
        for index in range(seconds * FPS):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), index, np.uint8))
            frame.pts = index
            frame.time_base = Fraction(1, FPS)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@pytest.fixture
def overlay(tmp_path):
    with VideoWriter(tmp_path / "overlay.mp4", fps=FPS) as writer:
        for index in range(20):
            writer.write(np.full((64, 64, 3), 10 * index, np.uint8))
    return tmp_path / "overlay.mp4"


def beeps(path: Path) -> list[int]:
    """The tenths of a second that are loud; sound that begins late is preceded by silence."""
    loud = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            if np.abs(frame.to_ndarray().astype(float)).mean() > 0.2:
                loud.append(int(10 * frame.time))
    return sorted(set(loud))


def pictures(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="gray").tobytes() for frame in container.decode(video=0)]


@pytest.mark.parametrize(("container", "codec", "sound"), [
    ("mp4", "libx264", "aac"), ("webm", "libvpx", "libopus"), ("avi", "mpeg4", "pcm_s16le"),
    ("matroska", "libx264", "libmp3lame")])
def test_the_sound_of_a_part_is_where_it_was_and_the_pictures_stay(tmp_path, overlay, container, codec, sound):
    source = film(tmp_path / f"film.{container}", container, codec, sound)
    before = pictures(overlay)
    assert add_sound(overlay, source, start=0.5, end=2.5)
    assert pictures(overlay) == before
    expected = {5, 6, 15, 16}
    heard = set(beeps(overlay))
    assert expected <= heard
    assert heard <= {4, *expected, 7, 14, 17}       # the packets of a codec overlap the tenths of a second
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".partial"] == []


def test_without_sound_the_overlay_stays_as_it_is(tmp_path, overlay, caplog):
    silent = tmp_path / "silent.mp4"
    silent.write_bytes(overlay.read_bytes())
    before = overlay.read_bytes()
    assert not add_sound(overlay, silent, start=0, end=2)
    assert not add_sound(overlay, film(tmp_path / "film.mp4", "mp4", "libx264", "aac"), start=60, end=90)
    assert caplog.records == []
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert not add_sound(overlay, tmp_path / "broken.mp4", start=0, end=2)
    assert "overlay.mp4 has no sound" in caplog.text
    assert overlay.read_bytes() == before
