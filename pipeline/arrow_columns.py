"""Columns of Arrow files as numpy arrays. pyarrow's own `to_numpy` imports pandas, for half a second and 40 MB."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def as_numpy(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Numbers or truth values without nulls; numbers of one chunk are not copied."""
    if isinstance(column, pa.ChunkedArray):
        return np.concatenate([as_numpy(chunk) for chunk in column.chunks])
    if pa.types.is_boolean(column.type):
        return as_numpy(column.cast(pa.uint8())).astype(bool)
    if not len(column):
        return np.zeros(0, str(column.type))
    return np.frombuffer(column.buffers()[1], str(column.type))[column.offset:column.offset + len(column)]
