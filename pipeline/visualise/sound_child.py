"""A program that writes an mp4 with the pictures of one file and the sound of another: `python sound_child.py <json>`.

Sound that players expect in an mp4 is copied, other sound becomes AAC. Without sound in the time that is asked for,
nothing is written. The program imports nothing of this project, so it starts in a fraction of a second.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import av

COPIED = ("aac", "mp3", "ac3", "eac3", "alac")


def main(overlay: str, source: str, target: str, start: float, end: float) -> None:
    """Write `target` from the pictures of `overlay` and the sound of `source` between two times, seconds."""
    with av.open(overlay) as pictures, av.open(source) as sounds:
        if not sounds.streams.audio:
            return
        stream = sounds.streams.audio[0]
        if start > 0:
            sounds.seek(int(start / stream.time_base), stream=stream, backward=True)
        packets = sound_packets(sounds, stream, start, end)
        first = next(packets, None)
        if first is None:
            return
        with av.open(target, "w", format="mp4", options={"movflags": "faststart"}) as container:
            picture_out = container.add_stream_from_template(pictures.streams.video[0])
            sound_out = (container.add_stream_from_template(stream) if stream.codec_context.name in COPIED
                         else container.add_stream("aac", rate=stream.codec_context.sample_rate))
            encoded = shifted(first, packets, stream, sound_out, start)
            container.mux(interleaved(picture_packets(pictures, picture_out), encoded))


def picture_packets(container, out) -> Iterator[av.Packet]:
    """The packets of the overlay, for the stream `out`."""
    for packet in container.demux(video=0):
        if packet.dts is not None:
            packet.stream = out
            yield packet


def sound_packets(container, stream, start: float, end: float) -> Iterator[av.Packet]:
    """The packets of a sound stream that begin between two times."""
    for packet in container.demux(stream):
        if packet.pts is None:
            continue
        seconds = float(packet.pts * packet.time_base)
        if seconds >= end:
            return
        if seconds >= start:
            yield packet


def shifted(first, packets, stream, out, start: float) -> Iterator[av.Packet]:
    """The packets for the stream `out`, with times that begin at `start`: copied, or decoded and encoded again."""
    def everything() -> Iterator[av.Packet]:
        yield first
        yield from packets

    offset = round(start / stream.time_base)
    if stream.codec_context.name in COPIED:
        for packet in everything():
            packet.pts -= offset
            packet.dts = packet.pts
            packet.stream = out
            yield packet
        return
    resampler = av.AudioResampler(format=out.codec_context.format, layout=out.codec_context.layout, rate=out.rate)
    written = None
    for frame in (frame for packet in everything() for frame in packet.decode()):
        for part in resampler.resample(frame):
            if written is None:
                written = max(round((float(frame.time) - start) * out.rate), 0)
            part.pts = written
            written += part.samples
            yield from out.encode(part)
    yield from out.encode(None)


def interleaved(pictures: Iterator[av.Packet], sounds: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """The packets of both streams in the order of time, as players want them in a file."""
    waiting = [next(pictures, None), next(sounds, None)]
    while any(waiting):
        turn = min((index for index, packet in enumerate(waiting) if packet is not None),
                   key=lambda index: float(waiting[index].dts * waiting[index].time_base))
        yield waiting[turn]
        waiting[turn] = next((pictures, sounds)[turn], None)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
