"""Decodes one video file, as a program of its own: `python decode_child.py probe|frames <arguments as json>`.

Broken files make video libraries spin in native code holding the interpreter's lock, where no thread, signal handler or
exception reaches them. Hence a process, and a kernel timer that ends it when one frame takes too long: the timer's
signal keeps its default action, so it kills even a process whose interpreter no longer runs. Nothing of this project is
imported: the program starts in a fraction of a second.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np


def die_after(seconds: float) -> None:
    """End this process unless the next call comes in time; 0 waits for ever."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def probe(path: str, *, timeout: float) -> dict[str, Any]:
    """Decode everything once, without colour conversion: what the file holds, or why it is refused.

    Gives frames, times, size (upright height, width), turns (quarter turns to the left that set a picture upright),
    streams, lost and damage; or reason, what, cure.
    """
    import av

    try:
        container = av.open(path)
    except (av.FFmpegError, OSError) as error:
        return _refusal("corrupt-video", f"no video can be opened here ({_say(error)}).")
    with container:
        if container.format.name.endswith("_pipe") or container.format.name == "image2":
            return _refusal("not-a-video", "this is a still picture.", "Give a folder of pictures instead.")
        streams = _pictures(container)
        if not streams:
            return _refusal("no-video-stream", "the file has no pictures, only other streams.", "Give another file.")
        facts = _decode_all(container, streams[0], timeout)
    if not facts["times"]:
        return _refusal("corrupt-video", f"not one frame can be decoded ({facts['damage'] or 'the stream is empty'}).")
    if len(facts["sizes"]) > 1:
        return _refusal("size-differs", f"the picture changes its size: {facts['sizes']} (height, width).",
                        "Scale it to one size, for example: ffmpeg -i FILE -vf scale=1280:720 NEW.mp4")
    return facts | {"streams": len(streams), "frames": len(facts["times"]), "size": facts["sizes"][0]}


def _decode_all(container, stream, timeout: float) -> dict[str, Any]:
    import av

    times = []
    sizes = {}
    turns = 0
    packets = 0
    damage = ""
    try:
        for packet in container.demux(stream):
            die_after(timeout)
            packets += packet.size > 0
            for frame in [] if damage else _decoded(packet):
                turns = _turns(frame)
                sizes[(frame.width, frame.height) if turns % 2 else (frame.height, frame.width)] = len(times)
                times.append(frame.time)
            if packet.size and not damage and packet.is_corrupt:
                damage = f"the file ends in the middle of frame {len(times)}"
    except _Damage as error:
        damage = str(error)
        packets += sum(packet.size > 0 for packet in _rest(container, stream))
    except av.FFmpegError as error:
        damage = _say(error)
    lost = max(packets, stream.frames) - len(times) if damage else 0    # the header counts frames an edit list hides
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    return {"times": _growing(times, rate), "sizes": list(sizes), "turns": turns, "damage": damage, "lost": lost,
            "rate": rate}


def frames(path: str, *, timeout: float, decoder: str, start: int, count: int, size: tuple[int, int]) -> Iterator:
    """Frames `start` ... `count` - 1 as H W 3 uint8 RGB, upright. Raises when they are not what `probe` found."""
    reader = _with_decord if decoder == "decord" else _with_av
    for image in reader(path, start, count, timeout):
        if image.shape != (*size, 3):
            raise ValueError(f"a frame of {image.shape}, expected {(*size, 3)}")
        yield image


def _with_decord(path: str, start: int, count: int, timeout: float) -> Iterator[np.ndarray]:
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    if len(reader) != count:    # an edit list: past the true end it repeats the last frame for ever
        raise ValueError(f"decord counts {len(reader)} frames, decoding gave {count}")
    if start:
        reader.seek_accurate(start)
    for _ in range(start, count):
        die_after(timeout)
        yield reader.next().asnumpy()


def _with_av(path: str, start: int, count: int, timeout: float) -> Iterator[np.ndarray]:
    import av

    with av.open(path) as container:
        decoded = container.decode(_pictures(container)[0])
        for index, frame in zip(range(count), decoded):
            die_after(timeout)
            if index >= start:      # skipped frames are decoded, not converted
                yield np.rot90(frame.to_ndarray(format="rgb24"), _turns(frame))


def _pictures(container) -> list:
    """The video streams but for cover pictures, in the order of the file; the first one is shown."""
    import av

    return [stream for stream in container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic]


def _turns(frame) -> int:
    return round(frame.rotation / 90) % 4 if abs(frame.rotation) <= 360 else 0    # a broken header gives nonsense


class _Damage(Exception):
    """Decoding stopped."""


def _decoded(packet) -> list:
    import av

    try:
        return packet.decode()
    except av.FFmpegError as error:
        raise _Damage(_say(error)) from error


def _rest(container, stream) -> Iterator:
    import av

    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        return


def _growing(times: list[float | None], rate: float) -> list[float]:
    """Time stamps in seconds; counted by the frame rate where the file's own are missing or do not grow."""
    if None not in times and all(later > earlier for earlier, later in pairwise(times)):
        return times
    return [index / rate for index in range(len(times))]


def _refusal(reason: str, what: str, cure: str = "Copy the file again, or export it again from its source.") -> dict:
    return {"reason": reason, "what": what, "cure": cure}


def _say(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def main() -> None:
    """Answer on standard output: json from `probe`, raw pixels from `frames`."""
    mode = sys.argv[1]
    arguments = json.loads(sys.argv[2])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})    # the parent may have blocked it
    die_after(arguments["timeout"])
    answer = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)     # whatever a library prints must not land among the pixels
    if mode == "probe":
        answer.write(json.dumps(probe(**arguments)).encode())
        return
    for image in frames(**arguments):
        die_after(0)  # the reader may take its time
        left = memoryview(np.ascontiguousarray(image)).cast("B")
        while left:
            left = left[answer.write(left):]
        die_after(arguments["timeout"])


if __name__ == "__main__":
    main()
