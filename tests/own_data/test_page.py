"""docs/own_data.md is executed as it stands, for every tool: from a folder with labelled videos to an overlay."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from jobs.verb import chosen_recipe, guarded
from pipeline.datasets.raw_video import open_video
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.visualise.video_writer import VideoWriter
from tests.own_data.exports import export
from tests.own_data.worlds import as_coco_video, edit

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "own_data.md").read_text()
TOOLS = {"LabelMe": "labelme", "CVAT": "cvat", "SAM 2, DAVIS, YouTube-VOS": "davis", "COCO video json": "coco video"}


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def write_recipe(text: str) -> Path:
    """The settings of a section, in the file that their first line names."""
    [settings] = blocks(text, "toml")
    path = Path(settings.splitlines()[0].removeprefix("# "))
    path.parent.mkdir(exist_ok=True)
    path.write_text(settings)
    return path


def labelled_videos(tool: str, folder: Path, world: Path) -> None:
    if tool != "coco video":
        export(tool, world, folder)
        if tool == "cvat":      # the page shows both exports
            shutil.rmtree(folder / "val")
            (export("cvat coco", world, folder.parent / "other") / "val").rename(folder / "val")
        return
    shutil.copytree(world, folder, dirs_exist_ok=True)
    (folder / "valid.json").rename(folder / "val.json")
    (folder / "valid").rename(folder / "val")
    for split in ("train", "val"):
        edit(folder / f"{split}.json", as_coco_video)


def run_command(line: str) -> None:
    """One command of the page, in this process."""
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", words[2]]
    verb = importlib.import_module(words[2])
    options = dict(zip(words[3::2], words[4::2]))
    changes = [options["--set"]] if "--set" in options else []
    assert set(options) <= {"--recipe", "--set"}
    code = guarded(verb.main, lambda: chosen_recipe(options["--recipe"], [*changes, "cluster.in_process=true"]))
    assert code == 0, line


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("page") / "world", SyntheticConfig(
        videos_train=4, videos_val=1, frames=6, height=64, width=64, layout="youtube_vis"))


def test_every_section_of_a_tool_is_executed():
    assert [name for name, text in sections().items() if blocks(text, "toml")] == list(TOOLS)
    assert sum(len(blocks(text, "sh")) for text in sections().values()) == 1 + len(TOOLS)


@pytest.mark.long
@pytest.mark.parametrize("section", TOOLS)
def test_a_section_leads_from_labelled_videos_to_an_overlay(section, world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = sections()[section]
    file = write_recipe(text)
    labelled_videos(TOOLS[section], file.parent, world)
    film(Path("film.mp4"), world)
    for line in "".join(blocks(text, "sh")).splitlines():
        run_command(line)
    run = tmp_path / "runs" / file.stem
    assert list((run / "check" / "train").glob("*.jpg"))
    assert len(open_video(run / "predictions" / "overlays" / "film.mp4").frame_names) == 6
    card = json.loads((run / "stage_one" / "model" / "model.json").read_text())
    assert card["config"]["num_classes"] == len(card["classes"]["classes"]) > 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    assert said
    assert all(f"--recipe {tmp_path / file}" in line and "num_classes" not in line for line in said)


def film(path: Path, world: Path) -> None:
    """The validation video as a file."""
    folder = next((world / "valid" / "JPEGImages").iterdir())
    with VideoWriter(path, fps=6.0) as writer:
        for frame in open_video(folder).frames(0, 6):
            writer.write(frame)
