"""Files of other projects are read in every container format, and never executed."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from jobs.foreign_checkpoints import read_checkpoint
from pipeline.errors import BadInput

WEIGHTS = OrderedDict(a=torch.arange(6.0).reshape(2, 3), half=torch.ones(3, dtype=torch.float16),
                      count=torch.tensor(7), transposed=torch.arange(6.0).reshape(2, 3).T)


def assert_read(path: Path) -> None:
    read = read_checkpoint(path)
    assert list(read) == list(WEIGHTS)
    for name, tensor in WEIGHTS.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"model": w, "iteration": 9, "best": np.float64(0.5)},
                                  lambda w: {"state_dict": w, "meta": {"epochs": np.int64(3), "when": "today"},
                                             "optimizer": {"lr": np.array([0.1, 0.2])}}], ids=["bare", "d2", "mmdet"])
def test_torch_files_are_read_with_numpy_beside_the_weights(tmp_path, wrap, zipped):
    torch.save(wrap(WEIGHTS), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert_read(tmp_path / "x.pth")


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_plain_pickles_of_detectron2_are_read(tmp_path, kind, protocol):
    weights = WEIGHTS if kind == "torch" else OrderedDict((name, tensor.numpy()) for name, tensor in WEIGHTS.items())
    content = {"model": weights, "__author__": "third_party", "matching_heuristics": True, "lr": np.float32(0.1)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    assert_read(tmp_path / "x.pkl")


def test_safetensors_and_wrong_suffixes_are_read(tmp_path):
    save_file({name: tensor.contiguous() for name, tensor in WEIGHTS.items()}, tmp_path / "x.pth")
    read = read_checkpoint(tmp_path / "x.pth")
    assert all(torch.equal(read[name], tensor) for name, tensor in WEIGHTS.items())
    torch.save(WEIGHTS, tmp_path / "x.safetensors")
    assert_read(tmp_path / "x.safetensors")


def test_big_endian_arrays_keep_their_values(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": np.arange(4, dtype=">f4")}))
    assert read_checkpoint(tmp_path / "x.pkl")["a"].tolist() == [0, 1, 2, 3]


class Command:
    """An object that creates a file when an ordinary reader unpickles it."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        import os
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("place", ["beside the weights", "as a weight", "first"])
@pytest.mark.parametrize("container", ["pickle-2", "pickle-5", "torch", "torch-legacy", "inside-a-storage"])
def test_a_hostile_pickle_is_refused_and_not_executed(tmp_path, container, place):
    witness = tmp_path / "executed"
    path = tmp_path / "x.pth"
    trap = Command(witness)
    content = {"beside the weights": {"model": WEIGHTS, "z": trap}, "as a weight": {"model": {**WEIGHTS, "z": trap}},
               "first": {"a": trap, "model": WEIGHTS}}[place]
    if container.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, protocol=int(container[-1])))
    elif container.startswith("torch"):
        torch.save(content, path, _use_new_zipfile_serialization=container == "torch")
    else:
        inner = io.BytesIO()
        torch.save(content, inner)

        class Storage:
            def __reduce__(self):
                return torch.storage._load_from_bytes, (inner.getvalue(),)
        path.write_bytes(pickle.dumps({"model": {"a": Storage()}}))
    with pytest.raises(BadInput, match=r"refused: it asks for '(posix|os|nt)\.system'.*Nothing was executed") as error:
        read_checkpoint(path)
    assert error.value.reason == "hostile-pickle"
    assert not witness.exists()
    if container.startswith("pickle"):      # an ordinary reader does execute it
        pickle.loads(path.read_bytes())
        assert witness.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "builtins.exec", "subprocess.Popen",
                                  "torch.load", "torch.hub.load", "numpy.load", "numpy.core.multiarray.fromfile",
                                  "torch._utils._rebuild_tensor_v2.__globals__", "operator.attrgetter"])
@pytest.mark.parametrize("protocol", [0, 4])
def test_no_other_global_is_reachable(tmp_path, name, protocol):
    module, _, attribute = name.rpartition(".")
    if protocol == 0:
        program = f"c{module}\n{attribute}\n.".encode()
    else:
        program = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(p)]) + p.encode() for p in (module, attribute)) + b"\x93."
    pickletools.dis(program, out=io.StringIO())      # raises for anything but a pickle
    (tmp_path / "x.pkl").write_bytes(program)
    with pytest.raises(BadInput, match=f"it asks for '{name}'"):
        read_checkpoint(tmp_path / "x.pkl")


@pytest.mark.parametrize("save", [lambda content, path: path.write_bytes(pickle.dumps(content)), torch.save],
                         ids=["pickle", "torch"])
@pytest.mark.parametrize("value", [np.array([{"a": 1}], dtype=object), np.array(["text"]),
                                   np.array([(1, 2.0)], dtype=[("x", "i4"), ("y", "f8")])],
                         ids=["objects", "text", "records"])
def test_arrays_of_anything_but_plain_numbers_are_refused(tmp_path, value, save):
    save({"a": value}, tmp_path / "x.pkl")
    with pytest.raises(BadInput, match="weights are plain numbers"):
        read_checkpoint(tmp_path / "x.pkl")


@pytest.mark.parametrize("keep", [0, 1, 5, 30, 200, 0.5, 0.95])
@pytest.mark.parametrize("container", ["zip", "legacy", "pickle", "safetensors"])
def test_a_file_that_is_cut_off_is_named_as_such(tmp_path, container, keep):
    path = tmp_path / "x.pth"
    weights = {name: tensor.contiguous() for name, tensor in WEIGHTS.items()} | {"large": torch.randn(500)}
    match container:
        case "zip" | "legacy":
            torch.save(weights, path, _use_new_zipfile_serialization=container == "zip")
        case "pickle":
            path.write_bytes(pickle.dumps({name: tensor.numpy() for name, tensor in weights.items()}))
        case "safetensors":
            save_file(weights, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(BadInput, match=r"x\.pth: cannot be read as a checkpoint.*cut off or damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(("content", "complaint"), [
    ([1, 2], "it contains a list without weights"), ({}, "it contains a dict without weights"),
    ({"model": {"a": "text"}}, "1 of 1 entries are not tensors"),
    ({"epoch": 3, "net": {"a": torch.ones(1)}}, "1 of 2 entries are not tensors")])
def test_a_file_without_weights_is_named(tmp_path, content, complaint):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(BadInput, match=complaint):
        read_checkpoint(tmp_path / "x.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "none.pth")
