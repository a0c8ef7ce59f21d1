"""Any video file as a `VideoSource`: counted by decoding, upright, streamed, and never a hang or a crash.

Decoding happens in a child process (`decode_child.py`). decord reads the frames; PyAV takes over from the frame where
decord refuses, fails, hangs, or counts otherwise. Measured on 20 real files: decord cannot open an AV1 and a VP9 file,
gives up in an MPEG-TS that starts late, and picks another of two video streams; in the other 16 both give the same
pixels, but for the interpolation of colour in one of 10 bits.
"""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline.clips import FolderSource, VideoSource
from pipeline.errors import BadInput

CHILD = Path(__file__).with_name("decode_child.py")
KEPT = 24           # frames remembered, so that clips may overlap
PIPE_BYTES = 2**20  # Linux's largest pipe for ordinary users; a 720p frame then takes 3 turns, not 42


def open_video(path: Path | str) -> VideoSource:
    """A video file, or a folder of frames, whichever `path` is. Raises as `RawVideo` and `FolderSource` do."""
    return FolderSource(path) if Path(path).is_dir() else RawVideo(path)


class RawVideo:
    """One video file. Opening it decodes it once to know that every frame is there; frames then come in order of time.

    Pixels come as stored, not stretched by a pixel aspect. Of several video streams the first is read. Picklable.

    video_id: name without suffix. times: seconds of each frame as the file says, perhaps uneven, perhaps not from 0.
    fps: mean rate. keep_damaged: read a file that breaks off up to the damage; `frames_lost` and `damage` then say what
    is missing. timeout: seconds one frame may take.

    Raises FileNotFoundError, and BadInput for anything that is not a sound video: "empty-file", "unreadable",
    "corrupt-video", "not-a-video", "no-video-stream", "size-differs", "decode-timeout".
    """

    def __init__(self, path: Path | str, *, keep_damaged: bool = False, timeout: float = 30) -> None:
        self.path = Path(path)
        self.timeout = timeout
        self.video_id = self.path.stem
        facts = self._probe()
        if facts["damage"] and not keep_damaged:
            raise self._bad("corrupt-video", f"only {facts['frames']} of {facts['frames'] + facts['lost']} frames can "
                            f"be decoded ({facts['damage']}).", "Copy it again, repair it (ffmpeg -i FILE NEW.mp4), or "
                            "set keep_damaged=True to use the frames before the damage.")
        self.damage = facts["damage"]
        self.frames_lost = facts["lost"]
        self.size: tuple[int, int] = tuple(facts["size"])                     # height, width, upright
        self.times: tuple[float, ...] = tuple(facts["times"])                 # T
        self.frame_names = tuple(f"{index:06d}" for index in range(facts["frames"]))
        span = self.times[-1] - self.times[0]
        self.fps: float = (len(self.times) - 1) / span if span > 0 else facts["rate"]
        # decord shows the largest stream, whatever the file's order.
        self.decoder = "decord" if facts["streams"] == 1 else "av"
        self._child: subprocess.Popen | None = None
        self._errors: IO[bytes] | None = None
        self._next = 0
        self._recent = []

    def frames(self, start: int, stop: int) -> list[np.ndarray]:
        """Frames `start` ... `stop` - 1, H W 3 uint8 RGB each, not to be changed. Fast in the order of time.

        Raises IndexError outside the video, BadInput when the file can no longer be decoded.
        """
        if not 0 <= start <= stop <= len(self.times):
            raise IndexError(f"frames {start} to {stop} of video {self.video_id!r}, which has {len(self.times)}")
        if not self._next - len(self._recent) <= start <= self._next:
            self.close()
            self._next = start
        kept = self._recent[len(self._recent) - (self._next - start):]
        new = [self._read() for _ in range(self._next, stop)]
        self._recent = (self._recent + new)[-KEPT:]
        return (kept + new)[:stop - start]

    def close(self) -> None:
        """End the child process; the next call of `frames` starts another."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child.stdout.close()
            self._errors.close()
        self._child = None
        self._errors = None
        self._recent = []

    def __enter__(self) -> RawVideo:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_child", None) is not None:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_child": None, "_errors": None, "_recent": [], "_next": 0}

    def _probe(self) -> dict[str, Any]:
        try:
            if self.path.stat().st_size == 0:
                raise self._bad("empty-file", "the file is empty (0 bytes).", "Copy it again.")
            self.path.open("rb").close()
        except FileNotFoundError:
            raise FileNotFoundError(f"no video file {self.path}; check the path") from None
        except OSError as error:
            raise self._bad("unreadable", f"{error.strerror}.", "Give a file this user may read.") from None
        with tempfile.TemporaryFile() as errors:
            done = subprocess.run(self._command("probe"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=errors, check=False)
            if done.returncode:
                raise self._death(done.returncode, errors)
        facts = json.loads(done.stdout)
        if "reason" in facts:
            raise self._bad(facts["reason"], facts["what"], facts["cure"])
        return facts

    def _read(self) -> np.ndarray:
        """The next frame. A child that ends early on decord is followed by one on PyAV; on PyAV that is an error."""
        frame = np.empty((*self.size, 3), np.uint8)
        while True:
            if self._child is None:
                self._start()
            if _fill(self._child, frame):
                self._next += 1
                return frame
            failed = self._child.wait()
            recent = self._recent
            if self.decoder == "av":
                raise self._death(failed, self._errors)
            self.close()
            self.decoder = "av"
            self._recent = recent

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()    # noqa: SIM115  lives as long as the child
        command = self._command("frames", decoder=self.decoder, start=self._next, count=len(self.times), size=self.size)
        self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors,
                                       bufsize=0)
        with suppress(OSError):     # the user may have too many pipes open; a small one only is slower
            fcntl.fcntl(self._child.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def _command(self, mode: str, **arguments: Any) -> list[str]:
        arguments = {"path": str(self.path), "timeout": self.timeout, **arguments}
        return [sys.executable, "-P", str(CHILD), mode, json.dumps(arguments)]

    def _death(self, code: int, errors) -> BadInput:
        if code == -signal.SIGALRM:
            return self._bad("decode-timeout", f"one frame took longer than {self.timeout:g} seconds to decode.",
                             "Convert the file (ffmpeg -i FILE NEW.mp4), or give a larger timeout on a busy machine.")
        errors.seek(0)
        last = (errors.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        return self._bad("corrupt-video", f"the decoder ended with code {code} ({last[:200]}).",
                         "Convert the file: ffmpeg -i FILE NEW.mp4")

    def _bad(self, reason: str, what: str, cure: str) -> BadInput:
        return BadInput(reason, what, video=self.video_id, file=self.path, cure=cure)


def _fill(child: subprocess.Popen, frame: np.ndarray) -> bool:
    """Read one frame's bytes; False when the child ended before."""
    left = memoryview(frame).cast("B")
    while left:
        count = child.stdout.readinto(left)
        if not count:
            return False
        left = left[count:]
    return True
