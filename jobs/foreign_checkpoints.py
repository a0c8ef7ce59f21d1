"""Read checkpoints of others without executing anything that is written in them.

A pickle is a program: it names Python functions and calls them. torch's files are read with `weights_only=True`; plain
pickles (detectron2's `.pkl`) by an unpickler that knows the names in `_STAND_INS` and nothing else. In both, numpy's
own constructors are replaced by stand-ins that accept plain numbers only, because numpy trusts the fields of a pickled
dtype. A file is recognised by its first bytes, never by its suffix.
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

from pipeline.errors import BadInput

# how torch's files begin
_TORCH_ZIP = b"PK\x03\x04"
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_SAFETENSORS = re.compile(rb".{8}\{", re.DOTALL)
_WRAPPERS = ("model", "state_dict")     # detectron2 and kMaX; mmdet and timm
_NUMBERS = re.compile(r"[iu][1248]|f[248]|b1")
_GLOBAL = re.compile(r"GLOBAL (\S+)")
_COPY_AGAIN = "The file is cut off or damaged: download or copy it again."


class Refused(pickle.UnpicklingError):
    """A pickle asked for something that weights do not need."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The weights of a .pth, .pt, .pkl or .safetensors file, name -> tensor, on the CPU.

    What a training run keeps beside them (optimizer, iteration) is dropped. Raises FileNotFoundError, or BadInput for
    a file that is damaged, holds no weights, or would run code (naming the function it asks for).
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; --source takes a .pth, .pt, .pkl or .safetensors file")
    try:
        content = _read(path)
    except Refused as error:
        raise BadInput("hostile-pickle", f"refused: {error}.", file=path, cure="Nothing was executed. Weights need no "
                       "such thing: get the file from its authors, or save its weights alone.") from None
    except Exception as error:      # damaged bytes make the three readers raise nearly anything
        raise BadInput("damaged-checkpoint", f"not readable as a checkpoint ({type(error).__name__}: "
                       f"{str(error).splitlines()[0][:200] if str(error) else 'no details'}).", file=path,
                       cure=_COPY_AGAIN) from None
    return _weights(content, path)


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        start = file.read(32)
    if start.startswith(_TORCH_ZIP) and path.suffix != ".safetensors":
        return _load_torch(path, mmap=True)         # reads the weights alone, not the optimizer beside them
    if start.startswith((_TORCH_ZIP, _TORCH_LEGACY)):
        with open(path, "rb") as file:              # by its name, torch would take the suffix at its word
            return _load_torch(file)
    if _SAFETENSORS.match(start):
        return load_file(path)
    with open(path, "rb") as file:
        return _Unpickler(file, encoding="latin1").load()     # detectron2 reads, and Python 2 wrote, that encoding


def _load_torch(file: Path | IO[bytes], *, mmap: bool = False) -> Any:
    """torch.load that executes nothing and says which global it was asked for when it refuses."""
    numpy_only = [(stand_in, name) for name, stand_in in _STAND_INS.items() if name.startswith(("numpy", "_codecs"))]
    try:
        with torch.serialization.safe_globals(numpy_only):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        if isinstance(error.__context__, Refused):      # one of the stand-ins refused, and torch has reworded it
            raise error.__context__ from None
        if not (asked := _GLOBAL.search(str(error))):
            raise
        raise Refused(f"it asks for {asked[1]!r}") from None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (stand_in := _STAND_INS.get(f"{module}.{name}")) is None:
            raise Refused(f"it asks for '{module}.{name}'")
        return stand_in


class _Dtype:
    """numpy.dtype of plain numbers: nothing but their kind, size and byte order is believed."""

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
    """numpy.ndarray: filled by `__setstate__`, as arrays are."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(content, (bytes, bytearray)):
        raise Refused("it holds an array that is not made of plain numbers")
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
    """Bytes, as pickles of protocol 2 spell them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused(f"it asks to encode {type(text).__name__} as {encoding!r}")
    return text.encode("latin1")


def _storage(content: Any) -> Any:
    """A tensor's memory inside a plain pickle is a torch file of its own."""
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
    """The dict of weights inside what a file holds."""
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise BadInput("no-weights", f"it holds a {type(content).__name__}, no dict of weights.", file=path,
                       cure=f"Weights stand at the top or under {' or '.join(_WRAPPERS)}.")
    weights = {name: _tensor(value) for name, value in content.items()}
    if strange := [name for name, value in weights.items() if value is None or not isinstance(name, str)]:
        raise BadInput("no-weights", f"{len(strange)} of {len(weights)} entries are no tensors: {strange[:5]}.",
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
