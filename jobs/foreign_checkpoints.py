"""Reads checkpoints from other projects without executing any code in them.

A pickle is a program: it names Python functions and calls them. Files of torch are read with `weights_only=True`, plain
pickles (detectron2's `.pkl`) with an unpickler that accepts only the names in `_STAND_INS`. In both, stand-ins that
accept nothing but plain numbers replace numpy's own constructors, because numpy trusts the fields of a pickled dtype.
A file is recognised by its first bytes, never by its suffix.
"""

from __future__ import annotations

import collections
import io
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline import store
from pipeline.errors import BadInput

# The first bytes of torch's files.
_TORCH_ZIP = b"PK\x03\x04"
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_SAFETENSORS = re.compile(rb".{8}\{", re.DOTALL)
_WRAPPERS = ("model", "state_dict")     # detectron2 and kMaX; mmdet and timm
_NUMBERS = re.compile(r"[iu][1248]|f[248]|b1")
_GLOBAL = re.compile(r"GLOBAL (\S+)")
_COPY_AGAIN = "The file is cut off or damaged: download or copy it again."


class Refused(pickle.UnpicklingError):
    """A pickle asks for an object that weights do not need."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The weights of a .pth, .pt, .pkl or .safetensors file, name -> tensor, on the CPU.

    Other content of a training checkpoint (optimizer, iteration) is dropped. Raises FileNotFoundError, or BadInput for
    a file that is damaged, contains no weights, or would run code (naming the function it asks for).
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; --source takes a .pth, .pt, .pkl or .safetensors file")
    store.fetch(path)
    try:
        content = _read(path)
    except Refused as error:
        raise BadInput("hostile-pickle", f"refused: {error}.", file=path, cure="Nothing was executed. Weights do "
                       "not need this: get the file from its authors, or save the weights alone.") from None
    except Exception as error:      # on damaged bytes the three readers raise errors of almost any type
        raise BadInput("damaged-checkpoint", f"cannot be read as a checkpoint ({type(error).__name__}: "
                       f"{str(error).splitlines()[0][:200] if str(error) else 'no details'}).", file=path,
                       cure=_COPY_AGAIN) from None
    return _weights(content, path)


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        start = file.read(32)
    if start.startswith(_TORCH_ZIP) and path.suffix != ".safetensors":
        return _load_torch(path, mmap=True)         # the optimizer beside the weights is never read
    if start.startswith((_TORCH_ZIP, _TORCH_LEGACY)):
        with open(path, "rb") as file:              # given the path, torch would trust the suffix
            return _load_torch(file)
    if _SAFETENSORS.match(start):
        return load_file(path)
    with open(path, "rb") as file:
        return _Unpickler(file, encoding="latin1").load()     # the encoding of Python 2, which detectron2 uses


def _load_torch(file: Path | IO[bytes], *, mmap: bool = False) -> Any:
    """torch.load without execution of code. When it refuses a file, the error names the global in question."""
    numpy_only = [(stand_in, name) for name, stand_in in _STAND_INS.items() if name.startswith(("numpy", "_codecs"))]
    try:
        with torch.serialization.safe_globals(numpy_only):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        if isinstance(error.__context__, Refused):      # a stand-in refused, and torch replaced its message
            raise error.__context__ from None
        if not (match := _GLOBAL.search(str(error))):
            raise
        raise Refused(f"it asks for {match[1]!r}") from None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (stand_in := _STAND_INS.get(f"{module}.{name}")) is None:
            raise Refused(f"it asks for '{module}.{name}'")
        return stand_in


class _Dtype:
    """Stand-in for numpy.dtype: reads only the type, size and byte order of plain numbers."""

    def __init__(self, code: str, *_flags: Any) -> None:
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            raise Refused(f"it holds an array of {code!r}; weights are plain numbers")
        self.order = "="
        self.code = code

    def __setstate__(self, state: tuple) -> None:
        _, self.order, *_ = state
        if self.order not in ("<", ">", "|", "="):
            raise Refused(f"it holds an array of byte order {self.order!r}")

    @property
    def real(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _Array:
    """Stand-in for numpy.ndarray, filled by `__setstate__` like one."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(content, (bytes, bytearray)):
        raise Refused("it holds an array of other values than plain numbers")
    return np.frombuffer(content, dtype.real).reshape(shape, order=order)


def _reconstruct(*_class_shape_and_kind: Any) -> _Array:
    return _Array()


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.value = _array(content, dtype, shape, "F" if order == "F" else "C")
    return array


def _scalar(dtype: Any, content: Any) -> float | int | bool:
    return _array(content, dtype, (), "C").item()


def _encode(text: Any, encoding: Any) -> bytes:
    """Stand-in for _codecs.encode, which pickles of protocol 2 use to store bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused(f"it asks to encode {type(text).__name__} as {encoding!r}")
    return text.encode("latin1")


def _storage(content: Any) -> Any:
    """Stand-in for a storage: inside a plain pickle the memory of a tensor is itself a torch file."""
    return _load_torch(io.BytesIO(content))


_STAND_INS: Mapping[str, Callable] = {
    "collections.OrderedDict": collections.OrderedDict,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    "torch.storage._load_from_bytes": _storage,
    "_codecs.encode": _encode,
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
    **{f"numpy.{core}.{place}": stand_in for core in ("core", "_core") for place, stand_in in (
        ("multiarray._reconstruct", _reconstruct), ("multiarray.scalar", _scalar), ("numeric._frombuffer", _frombuffer),
    )},
}


def _weights(content: Any, path: Path) -> dict[str, Tensor]:
    """The dict of weights inside the content of a file."""
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise BadInput("no-weights", f"it contains a {type(content).__name__} without weights.", file=path,
                       cure=f"Save a dict of tensors, at the top level or under {' or '.join(map(repr, _WRAPPERS))}.")
    weights = {name: _tensor(value) for name, value in content.items()}
    if others := [name for name, value in weights.items() if value is None or not isinstance(name, str)]:
        raise BadInput("no-weights", f"{len(others)} of {len(weights)} entries are not tensors: {others[:5]}.",
                       file=path, cure="Save the state dict of the model, not the model or its optimizer.")
    return weights


def _tensor(value: Any) -> Tensor | None:
    match value:
        case Tensor():
            return value.detach()
        case _Array(value=np.ndarray()):
            native = value.value.astype(value.value.dtype.newbyteorder("="))
            return torch.from_numpy(np.ascontiguousarray(native).reshape(native.shape))
        case bool() | int() | float():      # a counter that was saved as a number
            return torch.tensor(value)
    return None
