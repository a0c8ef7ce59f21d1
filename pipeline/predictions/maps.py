"""The maps of a video, one PNG a frame: files in a folder, or, in an object store, the members of one tar.

    <folder>/<video>/<frame>.png        a folder on disk
    <folder>/<video>.tar                an object store, which would otherwise have one object for each frame
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipeline.errors import BadInput
from pipeline.file_names import name_for
from pipeline.files import atomic_file, atomic_write
from pipeline.foreign_files import open_regular
from pipeline.images import encode_png
from pipeline.store import in_store


def write_maps(folder: Path, video_id: str, frames: Iterable[tuple[str, np.ndarray]]) -> Path:
    """Write the maps of a video, with one of them in memory at a time; returns the folder or the tar that holds them.

    frames: name and picture, H W or H W 3 uint8, of each frame.
    """
    maps = Path(folder) / name_for(video_id)
    pictures = ((f"{name_for(name, video=video_id)}.png", encode_png(picture)) for name, picture in frames)
    if not in_store(maps):
        maps.mkdir(parents=True, exist_ok=True)
        for name, content in pictures:
            atomic_write(maps / name, content)
        return maps
    maps.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(_tar_of(maps)) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in pictures:
            member = tarfile.TarInfo(name)      # owner and time stay 0, for equal bytes every time
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return _tar_of(maps)


def has_maps(maps: Path) -> bool:
    """Whether a folder `<folder>/<video>`, or its tar, is there."""
    return maps.is_dir() or _tar_of(maps).is_file()


@contextmanager
def maps_to_read(maps: Path) -> Iterator[Path]:
    """The folder of a video's maps: itself, or while the block runs a temporary one with the content of its tar.

    maps: `<folder>/<video>`. Raises BadInput "corrupt-label" for a tar that cannot be read; errors of its members name
    the tar.
    """
    tar = _tar_of(maps)
    if maps.is_dir() or not tar.is_file():      # where neither is there, the first frame is named
        yield maps
        return
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "maps"
        _unpack(tar, folder)
        try:
            yield folder
        except BadInput as error:
            member = tar / Path(error.file).name if error.file else tar
            raise BadInput(error.reason, error.what, video=error.video, file=member, cure=error.cure) from None


def _tar_of(maps: Path) -> Path:
    return maps.with_name(f"{maps.name}.tar")


def _unpack(tar: Path, folder: Path) -> None:
    folder.mkdir()
    try:
        with open_regular(tar) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.isfile() and not member.issparse():
                    archive.extract(member, folder, filter="data")
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise BadInput("corrupt-label", f"the maps in it cannot be read: {error}.", file=tar,
                       cure="Copy it again, or delete it and predict this video again.") from None
