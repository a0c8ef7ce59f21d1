"""A scratch file for tensors that are read back in order, so that memory does not grow with the length of a video."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from pipeline.files import naming


class TensorSpool:
    """Appends (tensor, number) pairs to a temporary file and reads them back in order, any number of times.

    The file is deleted when the spool is closed or garbage collected, or when the process ends.
    folder: a folder with enough room; by default the temporary folder of the system. noted: is told, while the spool is
    read, the sum of the numbers so far.
    """

    def __init__(self, folder: Path | str | None = None, *, noted: Callable[[int], None] | None = None) -> None:
        self._folder = Path(folder or tempfile.gettempdir())
        self._file = tempfile.TemporaryFile(dir=folder)    # noqa: SIM115 - open as long as the spool is
        self._noted = noted
        self._entries: list[tuple[int, tuple[int, ...], torch.dtype, int]] = []     # offset, shape, dtype, number

    def append(self, entry: tuple[Tensor, int], /) -> None:
        """Write one tensor, in its own dtype. Raises OSError naming the folder when the disk is full."""
        tensor, number = entry
        plain = tensor.detach().cpu().contiguous()
        with naming(self._folder, needed=plain.nbytes):
            offset = self._file.seek(0, 2)
            self._file.write(plain.view(torch.uint8).numpy().data if plain.ndim else plain.numpy().tobytes())
            self._file.flush()
        self._entries.append((offset, tuple(plain.shape), plain.dtype, number))

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        total = 0
        for offset, shape, dtype, number in self._entries:
            self._file.seek(offset)
            tensor = torch.empty(shape, dtype=dtype)
            self._file.readinto(tensor.view(torch.uint8).numpy().data)
            yield tensor, number
            total += number
            if self._noted is not None:
                self._noted(total)

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything that was appended."""
        self._file.truncate(0)
        self._entries = []

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
