"""A program that decodes one video file: `python decode_child.py probe|frames <arguments as json>`.

On broken files, video libraries can loop in native code while they hold the interpreter's lock. No thread, signal
handler or exception can stop them then, so decoding has its own process, and a kernel timer ends it when one frame
takes too long. The timer's signal keeps its default action, so it kills even a process whose interpreter no longer
runs. The program imports nothing of this project, so it starts in a fraction of a second.

It holds the few frames that the codec needs, however slowly its output is read: PyAV decodes a packet when the next
frame is asked for, and a full pipe stops the asking. (Libraries that decode in a thread of their own, such as decord,
hold the rest of the video while their reader is busy: 0.7 MB a frame at 640x360.)
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from typing import Any

import numpy as np

EXACT_DURATIONS = ("matroska,webm", "flv", "asf", "avi")    # formats whose header has the duration of what follows
DURATION_SLACK = 0.5    # seconds by which durations of intact files are too long
PICTURE_CODECS = ("bmp", "gif", "jpeg2000", "mjpeg", "png", "tiff", "webp")


def die_after(seconds: float) -> None:
    """End this process unless this function is called again in time; 0 switches the timer off."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def probe(path: str, *, timeout: float, counted: Callable[[int], None]) -> dict[str, Any]:
    """Decode everything once, without colour conversion, and describe the file or say why it is refused.

    counted: is told about once a second how many frames were decoded. Returns frames, times, stamped (whether these
    times are those in the file), others (video streams that are not read), size (upright height, width), turns (quarter
    turns to the left that set a picture upright), expected (frames that index, packets and duration promise) and
    damage; or reason, what and cure of a refusal.
    """
    import av

    try:
        container = av.open(path)
    except (av.FFmpegError, OSError) as error:
        return _refusal("corrupt-video", f"this file cannot be opened as a video ({_message(error)}).")
    with container:
        if container.format.name.endswith("_pipe") or container.format.name == "image2":
            return _refusal("not-a-video", "the file is a still picture.",
                            "Save it as JPEG or PNG; if it is one, let its name end so.")
        streams = _pictures(container)
        if not streams:
            return _refusal("no-video-stream", "the file has no pictures, only other streams.", "Give another file.")
        facts = _decode_all(container, streams[0], timeout, counted)
    if not facts["times"]:
        return _refusal("corrupt-video", f"no frame can be decoded ({facts['damage'] or 'the stream is empty'}).")
    if len(facts["sizes"]) > 1:
        return _refusal("size-differs", f"the frames have different sizes: {facts['sizes']} (height, width).",
                        "Scale it to one size, for example: ffmpeg -i FILE -vf scale=1280:720 NEW.mp4")
    return facts | {"frames": len(facts["times"]), "size": facts["sizes"][0], "others": len(streams) - 1}


def _decode_all(container, stream, timeout: float, counted: Callable[[int], None]) -> dict[str, Any]:
    import av

    times = []
    sizes = {}
    turns = 0
    packets = 0
    end = 0.0       # of the last packet of any stream, seconds
    damage = ""
    reported = time.monotonic()
    try:
        for packet in container.demux():
            die_after(timeout)
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index != stream.index:
                continue
            packets += packet.size > 0
            for frame in [] if damage else _decoded(packet):
                turns = _turns(frame)
                sizes[(frame.width, frame.height) if turns % 2 else (frame.height, frame.width)] = len(times)
                times.append(frame.time)
            if packet.size and not damage and packet.is_corrupt:
                damage = f"the file ends in the middle of frame {len(times)}"
            if time.monotonic() - reported >= 1:
                reported = time.monotonic()
                counted(len(times))
    except _Damage as error:
        damage = str(error)
        packets += sum(packet.size > 0 for packet in _rest(container, stream))
    except av.FFmpegError as error:
        damage = _message(error)
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    duration = container.duration / av.time_base if container.duration else 0.0
    if not damage and container.format.name in EXACT_DURATIONS and end < 0.98 * duration - DURATION_SLACK:
        damage = f"it ends after {end:.1f} of {duration:.1f} seconds"
    stamped = _grow(times)
    return {"times": times if stamped else [index / rate for index in range(len(times))], "stamped": stamped,
            "sizes": list(sizes), "turns": turns, "damage": damage, "rate": rate,
            "expected": max(packets, stream.frames, round(duration * rate))}


def frames(path: str, *, timeout: float, start: int, at: float | None, count: int, size: tuple[int, int]) -> Iterator:
    """Frames `start` ... `count` - 1 as H W 3 uint8 RGB, upright. Raises when they differ from what `probe` found.

    at: the time of the first one, if the file may be entered there; otherwise everything before it is decoded as well.
    """
    for _, frame in zip(range(start, count), _decoded_from(path, start, at, timeout)):
        image = np.rot90(frame.to_ndarray(format="rgb24"), _turns(frame))
        if image.shape != (*size, 3):
            raise ValueError(f"a frame has the shape {image.shape}, expected {(*size, 3)}")
        yield image


def _decoded_from(path: str, start: int, at: float | None, timeout: float) -> Iterator:
    import av

    if at is not None:
        with av.open(path) as container:
            decoded = _from_time(container, _pictures(container)[0], at, timeout)
            first = next(decoded, None)
            if first is not None:
                yield first
                yield from decoded
                return
    with av.open(path) as container:
        yield from islice(_timed(container.decode(_pictures(container)[0]), timeout), start, None)


def _from_time(container, stream, at: float, timeout: float) -> Iterator:
    """The frames from the one with exactly this time on; none where a search for it does not lead there."""
    import av

    near = float(stream.time_base) / 2
    decoded = _timed(container.decode(stream), timeout)
    try:
        container.seek(round(at / stream.time_base), stream=stream, backward=True)
        reached = next((frame for frame in decoded if frame.time is None or frame.time >= at - near), None)
    except av.FFmpegError:
        return
    if reached is not None and reached.time is not None and reached.time <= at + near:
        yield reached
        yield from decoded


def _timed(decoded: Iterator, timeout: float) -> Iterator:
    """The same frames, with the timer set anew after each of them."""
    for frame in decoded:
        die_after(timeout)
        yield frame


def _pictures(container) -> list:
    """All video streams except cover pictures, in the order of the file; the first one is read.

    Matroska does not mark a cover that was added as a stream: one of pictures beside another codec is taken for it.
    """
    import av

    streams = [stream for stream in container.streams.video
               if not stream.disposition & av.stream.Disposition.attached_pic]
    return [stream for stream in streams if stream.codec_context.name not in PICTURE_CODECS] or streams


def _turns(frame) -> int:
    return round(frame.rotation / 90) % 4 if abs(frame.rotation) <= 360 else 0    # a broken header can give nonsense


class _Damage(Exception):
    """Decoding stopped at damaged data."""


def _decoded(packet) -> list:
    import av

    try:
        return packet.decode()
    except av.FFmpegError as error:
        raise _Damage(_message(error)) from error


def _rest(container, stream) -> Iterator:
    import av

    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        return


def _grow(times: list[float | None]) -> bool:
    return None not in times and all(later > earlier for earlier, later in pairwise(times))


def _refusal(reason: str, what: str, cure: str = "Copy the file again, or export it again from its source.") -> dict:
    return {"reason": reason, "what": what, "cure": cure}


def _message(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def main() -> None:
    """Write the result to standard output: a line for each count and the json of `probe`, or raw pixels of `frames`."""
    mode = sys.argv[1]
    arguments = json.loads(sys.argv[2])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})    # the parent may have blocked it
    die_after(arguments["timeout"])
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)     # text that a library prints must not mix with the pixels
    if mode == "probe":
        facts = probe(**arguments, counted=lambda frames: output.write(f"{frames}\n".encode()))
        output.write(json.dumps(facts).encode())
        return
    for image in frames(**arguments):
        die_after(0)  # the reader may take as long as it likes
        left = memoryview(np.ascontiguousarray(image)).cast("B")
        while left:
            left = left[output.write(left):]
        die_after(arguments["timeout"])


if __name__ == "__main__":
    main()
