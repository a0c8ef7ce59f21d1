"""Any video file as a `VideoSource`: frames are counted by decoding, set upright and streamed; a broken file cannot
hang or crash the reader.

A child process (`decode_child.py`) decodes with PyAV, no further ahead than a pipe is long: memory does not grow with
the length of a video, nor with the time that its reader takes.
"""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline import store
from pipeline.clips import FolderSource, VideoSource
from pipeline.datasets.container_end import missing_bytes
from pipeline.errors import BadInput
from pipeline.file_names import PICTURES, at_home
from pipeline.foreign_files import open_regular, refuse_special

CHILD = Path(__file__).with_name("decode_child.py")
PLAYLISTS = (b"#EXTM3U", b"ffconcat version", b"<MPD ", b"\nc=IN ")     # decoders would open the files that they name
PLAYLIST_BYTES = 4096       # of the start of a file, in which decoders look for them
ANIMATED = ".gif"   # the one suffix of pictures that people give to videos
KEPT = 24           # frames kept in memory, so that clips may overlap
SKIPPED = 250       # frames that are read without use rather than starting a new child, which seeks
PIPE_BYTES = 2**20  # Linux's largest pipe for ordinary users; a 720p frame then needs 3 reads instead of 42


def open_video(path: Path | str, *, keep_damaged: bool = False, counted: Callable[[int], None] = lambda _: None,
               faults: list[BadInput] | None = None) -> VideoSource:
    """Open a video file, a folder of frames or a picture. Raises the errors of `RawVideo` and `FolderSource`.

    keep_damaged: as for `RawVideo`. faults: as for `FolderSource`. counted: is told how many frames were decoded.
    """
    path = at_home(path)
    store.fetch(path)
    is_picture = path.suffix.lower() in PICTURES and path.suffix.lower() != ANIMATED
    if path.is_dir() or is_picture:
        return FolderSource(path, faults=faults, counted=counted)
    return RawVideo(path, keep_damaged=keep_damaged, counted=counted)


class RawVideo:
    """One video file. The constructor decodes it once, to make sure that every frame is there. Picklable.

    Frames have the pixels as stored; a pixel aspect ratio is not applied. Of several video streams, the first is
    read, and `left_out` is a line about the others.

    video_id: name without suffix. times: seconds of each frame as stored in the file; steps may be uneven, and the
    first may differ from 0. fps: mean rate. keep_damaged: read a damaged file up to the damage; `damage` and
    `frames_lost`, at least so many, then describe the missing part. timeout: seconds that one frame may take. counted:
    is told about once a second how many frames the constructor has decoded.

    Raises FileNotFoundError, and BadInput for anything but an intact video: "empty-file", "unreadable",
    "corrupt-video", "not-a-video", "no-video-stream", "size-differs", "decode-timeout".
    """

    def __init__(self, path: Path | str, *, keep_damaged: bool = False, timeout: float = 30,
                 counted: Callable[[int], None] = lambda _: None) -> None:
        self.path = Path(path)
        self.timeout = timeout
        self.video_id = self.path.stem
        facts = self._probe(counted)
        self.damage = facts["damage"]
        self.left_out = ""
        if facts["others"]:
            self.left_out = (f"{self.path} has {facts['others'] + 1} video streams, and only the first is read; for "
                             "the second: ffmpeg -i FILE -map 0:V:1 -c copy NEW.mp4")
        self.frames_lost = max(facts["expected"] - facts["frames"], 1) if self.damage else 0
        if self.damage and not keep_damaged:
            of_all = f" of {facts['expected']}" if facts["expected"] > facts["frames"] else ""
            raise self._bad("corrupt-video", f"only {facts['frames']}{of_all} frames can be decoded ({self.damage}).",
                            "Copy it again, or repair it (ffmpeg -i FILE NEW.mp4). To use the frames before the "
                            "damage: --set predict.keep_damaged=true, or in Python open_video(FILE, "
                            "keep_damaged=True).")
        self.size: tuple[int, int] = tuple(facts["size"])                     # height, width, upright
        self.times: tuple[float, ...] = tuple(facts["times"])                 # T
        self.frame_names = tuple(f"{index:06d}" for index in range(facts["frames"]))
        span = self.times[-1] - self.times[0]
        self.fps: float = (len(self.times) - 1) / span if span > 0 else facts["rate"]
        self._stamped: bool = facts["stamped"]      # a new child may look for a frame by its time
        self._child: subprocess.Popen | None = None
        self._errors: IO[bytes] | None = None
        self._next = 0
        self._recent = []

    def frames(self, start: int, stop: int) -> list[np.ndarray]:
        """Frames `start` ... `stop` - 1, H W 3 uint8 RGB each, not to be changed. Reading in the order of time is fast.

        Raises IndexError outside the video, BadInput when the file can no longer be decoded.
        """
        if not 0 <= start <= stop <= len(self.times):
            raise IndexError(f"frames {start} to {stop} are outside video {self.video_id!r}, which has "
                             f"{len(self.times)} frames")
        if not self._next - len(self._recent) <= start <= self._next + SKIPPED:
            self.close()
            self._next = start
        while self._next < start:
            self._recent = []
            self._read()
        kept = self._recent[len(self._recent) - (self._next - start):]
        new = [self._read() for _ in range(self._next, stop)]
        self._recent = (self._recent + new)[-KEPT:]
        return (kept + new)[:stop - start]

    def close(self) -> None:
        """End the child process; the next call of `frames` starts a new one."""
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

    def _probe(self, counted: Callable[[int], None]) -> dict[str, Any]:
        try:
            refuse_special(self.path, self.path.stat().st_mode, video=self.video_id)
            if self.path.stat().st_size == 0:
                raise self._bad("empty-file", "the file is empty (0 bytes).", "Copy it again.")
            with open_regular(self.path) as file:
                start = file.read(PLAYLIST_BYTES)
            if any(mark in start for mark in PLAYLISTS):
                raise self._bad("not-a-video", "the file is a playlist or a description of a stream, which names other "
                                "files.", "Give those files themselves.")
            missing = missing_bytes(self.path)
        except FileNotFoundError:
            raise FileNotFoundError(f"no video file {self.path}; check the path") from None
        except OSError as error:
            raise self._bad("unreadable", f"{error.strerror}.", "Give this user read permission.") from None
        facts = self._decode_all(counted)
        cut = f"the file ends {missing:,} bytes early" if missing else ""
        if "reason" in facts:
            raise self._bad(facts["reason"], f"{cut}: " * bool(cut) + facts["what"], facts["cure"])
        return facts | {"damage": cut or facts["damage"]}

    def _decode_all(self, counted: Callable[[int], None]) -> dict[str, Any]:
        """What `decode_child.probe` returns."""
        last = b""
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(self._command("probe"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=errors) as process:
                try:
                    for last in process.stdout:
                        if last.endswith(b"\n"):
                            counted(int(last))
                except BaseException:
                    process.kill()
                    raise
            if process.returncode:
                raise self._death(process.returncode, errors)
        return json.loads(last)

    def _read(self) -> np.ndarray:
        """The next frame. Raises BadInput where the child ends before."""
        frame = np.empty((*self.size, 3), np.uint8)
        if self._child is None:
            self._start()
        if not _fill(self._child, frame):
            raise self._death(self._child.wait(), self._errors)
        self._next += 1
        return frame

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()    # noqa: SIM115  stays open as long as the child lives
        at = self.times[self._next] if self._next and self._stamped else None
        command = self._command("frames", start=self._next, at=at, count=len(self.times), size=self.size)
        self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors,
                                       bufsize=0)
        with suppress(OSError):     # fails if the user has too many pipes open; a small pipe is only slower
            fcntl.fcntl(self._child.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def _command(self, mode: str, **arguments: Any) -> list[str]:
        arguments = {"path": str(self.path), "timeout": self.timeout, **arguments}
        return [sys.executable, "-P", str(CHILD), mode, json.dumps(arguments)]

    def _death(self, code: int, errors) -> BadInput:
        if code == -signal.SIGALRM:
            return self._bad("decode-timeout", f"one frame took longer than {self.timeout:g} seconds to decode.",
                             "Convert the file (ffmpeg -i FILE NEW.mp4), or set a larger timeout on a busy machine.")
        errors.seek(0)
        last = (errors.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        return self._bad("corrupt-video", f"the decoder ended with code {code} ({last[:200]}).",
                         "Convert the file: ffmpeg -i FILE NEW.mp4")

    def _bad(self, reason: str, problem: str, cure: str) -> BadInput:
        return BadInput(reason, problem, video=self.video_id, file=self.path, cure=cure)


def _fill(child: subprocess.Popen, frame: np.ndarray) -> bool:
    """Read the bytes of one frame; False if the child ended before."""
    left = memoryview(frame).cast("B")
    while left:
        count = child.stdout.readinto(left)
        if not count:
            return False
        left = left[count:]
    return True
