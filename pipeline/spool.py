"""A scratch file for tensors that are read back once, in order: memory stays flat however long the video is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor


class TensorSpool:
    """Appends (tensor, number) pairs to a temporary file and gives them back in order, as often as asked.

    The file has no name that outlives the process; it goes when the spool is closed or forgotten.
    folder: where there is room for it; the system's temporary folder by default.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)    # noqa: SIM115 - lives as long as the spool
        self._entries: list[tuple[int, tuple[int, ...], torch.dtype, int]] = []     # offset, shape, dtype, number

    def append(self, entry: tuple[Tensor, int], /) -> None:
        """Keep one tensor, in its own dtype. Raises OSError when the disk is full."""
        tensor, number = entry
        plain = tensor.detach().cpu().contiguous()
        offset = self._file.seek(0, 2)
        self._file.write(plain.view(torch.uint8).numpy().data if plain.ndim else plain.numpy().tobytes())
        self._entries.append((offset, tuple(plain.shape), plain.dtype, number))

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        for offset, shape, dtype, number in self._entries:
            self._file.seek(offset)
            tensor = torch.empty(shape, dtype=dtype)
            self._file.readinto(tensor.view(torch.uint8).numpy().data)
            yield tensor, number

    def __len__(self) -> int:
        return len(self._entries)

    def close(self) -> None:
        """Free the disk."""
        self._file.close()
