"""Files and names that were made to do harm: none commands a terminal, runs code, or unpacks to more than it may."""

from __future__ import annotations

import io
import json
import logging
import pickle
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch import nn

from jobs import console
from jobs.models import load_weights, save_model
from jobs.reproducing.report import markdown
from jobs.reproducing.tables import tables
from jobs.reproducing.verdicts import Verdict
from jobs.training.checkpoint import Damaged, load_checkpoint, save_checkpoint
from jobs.training.optimizer import OptimizerConfig, build_optimizer
from pipeline.errors import BadInput
from pipeline.files import sha256_of
from pipeline.progress import Place
from pipeline.query_cache.view_table import ViewTable, read_table
from pipeline.seals import sealed
from pipeline.shards import ShardConfig, ShardSet, index, make_shards
from pipeline.shards.index import index_path, rebuild_rows
from pipeline.shards.streaming import stream_members
from tests.pipeline.shards.index_files import as_earlier_version, change_rows
from tests.pipeline.shards.toy_videos import toy_videos

# Sequences that set the title, clear the screen, delete a line, ring, and turn the order of what follows.
COMMANDS = ("\x1b]0;title\x07", "\x1b[2J\x1b[H", "\x9b31m", "\rdone", "\b\b\b", "\x7f", "\u202egpj.exe",
            "\u2066x\u2069", "\ud800", "\u2028")
NEVER = set("\x1b\x07\x9b\r\b\x7f\u202e\u2066\u2069\ud800\u2028")
END = bytes(2 * tarfile.BLOCKSIZE)


@pytest.mark.parametrize("command", COMMANDS, ids=ascii)
def test_no_name_commands_the_terminal(capsys, command):
    name = f"a{command}b"
    console.say(f"skipped: {name}", "a\ttab, ä, 漢字 and 👩‍👩‍👧 stay")
    record = logging.LogRecord("x", logging.INFO, "x", 1, "%s has no label", (name,), None)
    logged = console.Printable("%(message)s").format(record)
    error = str(BadInput("bad-name", f"the class {name} is unknown.", video=name, file=f"/x/{name}", cure=name))
    printed = capsys.readouterr().out
    for text in (printed, logged, error, str(Place(name, "watched"))):
        assert not NEVER & set(text)
    assert "a\ttab, ä, 漢字 and 👩‍👩‍👧 stay\n" in printed


def test_the_lines_of_a_text_stay_lines(capsys):
    console.say("error: one\n  two", "three")
    assert capsys.readouterr().out == "error: one\n  two\nthree\n"


def test_an_error_stays_in_its_cell_of_a_table():
    table = next(iter(tables().values()))
    verdict = Verdict(row=table.rows[0].name, metric=table.metrics[0], published=1.0, seeds=0, ours=float("nan"),
                      interval=(float("nan"),) * 2, reference="", published_difference=float("nan"),
                      difference=(float("nan"),) * 3, sign="failed: a|b\n| c | <script>\x1b[2J")
    row = next(line for line in markdown(table, [verdict], "").splitlines() if "failed" in line)
    assert r"failed: a\|b\\n\| c \| &lt;script>\\x1b[2J |" in row


@pytest.fixture
def folder(tmp_path) -> Path:
    make_shards(toy_videos(tmp_path / "toy", {"a": 3, "b": 2}), tmp_path / "set", ShardConfig(clip_frames=4),
                split="train")
    return tmp_path / "set"


def packed(path: Path, compression: str) -> None:
    """Write an Arrow file again, with the same batches and facts, but compressed."""
    reader = pa.ipc.open_file(path.read_bytes())
    batches = [reader.get_batch_with_custom_metadata(place) for place in range(reader.num_record_batches)]
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, reader.schema, options=options) as writer:
        for batch, facts in batches:
            writer.write_batch(batch, custom_metadata=facts)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_packed_index_is_not_unpacked(folder, compression):
    change_rows(folder, lambda rows: rows[0].update(key="k" * 2**27))
    packed(index_path(folder), compression)
    assert index_path(folder).stat().st_size < 2**20
    with pytest.raises(BadInput, match=r"index\.arrow.*compressed batch.*Delete the index"):
        ShardSet(folder)
    index_path(folder).unlink()
    assert len(ShardSet(folder).videos) == 2


def test_a_packed_table_of_views_is_not_unpacked(tmp_path):
    columns = {"video": ["a"], "view": [0], "part": [0], "group": [0], "clips": [1], "frames": [3], "full": [1]}
    path = tmp_path / "views.arrow"
    listed = ViewTable.from_columns(columns).save(path)
    assert len(read_table(path, listed)) == 1
    packed(path, "zstd")
    with pytest.raises(BadInput, match="compressed batch"):
        read_table(path, listed | {"sha256": sha256_of(path)})


@pytest.mark.parametrize(("name", "value"), [("LARGEST_EARLIER_INDEX", 10_000), ("MOST_VALUES", 10_000)])
def test_an_index_of_an_earlier_version_is_not_unpacked_without_bound(folder, monkeypatch, name, value):
    change_rows(folder, lambda rows: rows[0].update(frame_names=["name"] * 20_000))
    path = as_earlier_version(folder)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(index, name, value)
    with pytest.raises(BadInput, match=r"index\.parquet.*unpacks to more than an index has"):
        ShardSet(folder)


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields) -> bytes:
    """A member of a tar, with a header that may be wrong."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def with_clip(**fields) -> bytes:
    """A tar of one clip, with fields of its description replaced."""
    meta = {"video_id": "v", "clip_index": 0, "start_frame": 0, "num_frames": 1, "height": 4, "width": 4,
            "frame_names": ["0"], "segments": [], "overlaps": [], **fields}
    return member("a.f000.jpg", b"jpeg") + member("a.meta.json", json.dumps(meta).encode()) + END


TARS = {
    "absolute name": member("/etc/x.f000.jpg", b"abcd") + END,
    "name that climbs": member("../../x.f000.jpg", b"abcd") + END,
    "hard link": member("a.f000.jpg", kind=tarfile.LNKTYPE, linkname="/etc/passwd") + END,
    "link": member("a.f000.jpg", kind=tarfile.SYMTYPE, linkname="/etc/passwd") + END,
    "device": member("a.f000.jpg", kind=tarfile.CHRTYPE, devmajor=1, devminor=5) + END,
    "pipe": member("a.f000.jpg", kind=tarfile.FIFOTYPE) + END,
    "sparse": member("a.f000.jpg", kind=tarfile.GNUTYPE_SPARSE) + END,
    "eight gigabytes": member("a.f000.jpg", size=8**11 - 1) + END,
    "long names without end": member("././@LongLink", b"aaa\0", tarfile.GNUTYPE_LONGNAME) * 3000 + END,
    "headers without end": member("p", b"10 a=bcde\n", tarfile.XHDTYPE) * 3000 + END,
    "a header of eight gigabytes": member("p", b"10 a=bcde\n", tarfile.XHDTYPE, size=2**33) + END,
    "size in the header": member("p", b"20 size=99999999999\n", tarfile.XHDTYPE) + member("a.f000.jpg", b"abcd") + END,
    "map of holes": member("p", b"28 GNU.sparse.map=1,2,3,x,9\n", tarfile.XHDTYPE) + member("a.f000.jpg") + END,
    "name for a terminal": member("a\x1b]0;x\x07.f000.jpg", b"abcd") + END,
    "field twice": member("a.meta.json", b'{"a":1, "a":2}') + END,
    "deep json": member("a.meta.json", b"[" * 10**5) + END,
    "a list": member("a.meta.json", b"[]") + END,
    "1e400": member("a.meta.json", b'{"video_id": 1e400}') + END,
    "infinite height": with_clip(height=float("inf")),
    "a number beyond all bounds": with_clip(width=10**30),
    "a large number": with_clip(clip_index=2**70),
    "a text for a number": with_clip(height="4"),
    "half a character": with_clip(frame_names=["\ud800"]),
    "a number for objects": with_clip(segments=7),
    "a list for a name": with_clip(video_id=["v"]),
    "no tar": b"\x1f\x8b" + bytes(600),
}


@pytest.mark.parametrize("content", TARS.values(), ids=TARS.keys())
def test_a_hostile_tar_is_named(tmp_path, content):
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"x\.tar") as raised:
        rebuild_rows(path, 0)
    assert raised.value.reason == "damaged-shard"
    with pytest.raises(BadInput, match=r"x\.tar"):
        stream_members(str(tmp_path), "x.tar", {"a.f000.jpg": 4, "a.other": 1})
    assert list(tmp_path.iterdir()) == [path]


class Program:
    """What pickle executes when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


def as_torch(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


PROGRAMS = {"pickle": pickle.dumps, "torch": as_torch,
            "yaml": lambda program: f"!!python/object/apply:os.mknod ['{program.mark}']".encode(),
            "header of gigabytes": lambda program: (2**40).to_bytes(8, "little") + b"{}"}


@pytest.mark.parametrize("write", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_program_in_place_of_weights_is_named_and_not_run(tmp_path, write):
    save_model(tmp_path, nn.Linear(1, 1).state_dict(), {"kind": "head"})
    path = tmp_path / "model.safetensors"
    path.write_bytes(write(Program(tmp_path / "mark")))
    card = {**json.loads((tmp_path / "model.json").read_text()), "weights_sha256": sha256_of(path)}
    card.pop("seal")
    (tmp_path / "model.json").write_text(json.dumps(sealed(card)))
    with pytest.raises(BadInput, match=r"model\.safetensors.*holds no tensors.*Copy the folder of the model again"):
        load_weights(tmp_path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
@pytest.mark.parametrize("write", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_program_in_a_checkpoint_is_named_and_not_run(tmp_path, write, name):
    model = nn.Linear(1, 1)
    optimizer = build_optimizer(model, OptimizerConfig())
    save_checkpoint(tmp_path, model=model, optimizer=optimizer, state={"step": 2})
    (tmp_path / name).write_bytes(write(Program(tmp_path / "mark")))
    state = json.loads((tmp_path / "state.json").read_text())
    state.pop("seal")
    state["files"][name] = sha256_of(tmp_path / name)
    (tmp_path / "state.json").write_text(json.dumps(sealed(state)))
    with pytest.raises(Damaged, match=f"{name} holds no tensors.*Remove the folder of this checkpoint"):
        load_checkpoint(tmp_path, model=model, optimizer=optimizer)
    assert not (tmp_path / "mark").exists()
