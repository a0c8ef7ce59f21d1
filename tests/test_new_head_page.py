"""docs/new_head.md is executed as it stands: its file and its row make a head that trains, is scored and is refused."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from jobs import cache_queries
from model.contracts import QueryShapes, VideoQueries
from model.cross_clip import HEADS, ROWS
from tests.untrained_run import untrained_on_shards

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "new_head.md").read_text()
TABLE = "model/cross_clip/__init__.py"
ALONE = """
import sys
from jobs.verb import chosen_recipe, guarded
from importlib import import_module
for verb, *changes in {commands!r}:
    code = guarded(import_module(verb).main, lambda: chosen_recipe("gru.toml", [*changes, "cluster.in_process=true"]))
    if code:
        sys.exit(code)
"""


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return text


def written(text: str, folder: Path) -> Path:
    """A block in the file that its first line names."""
    path = folder / text.splitlines()[0].removeprefix("# ")
    path.write_text(text)
    return path


def tree_with_the_head(folder: Path) -> Path:
    """A copy of the sources with the file and the row of the page."""
    for room in ("model", "pipeline", "jobs"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    written(block("python"), folder)
    lines = block("diff").splitlines(keepends=True)
    before, after = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
    table = (folder / TABLE).read_text()
    assert table.count(before) == 1
    (folder / TABLE).write_text(table.replace(before, after))
    return folder


@pytest.fixture(scope="module")
def page() -> ModuleType:
    module = ModuleType("gru")
    sys.modules["gru"] = module
    exec(compile(block("python"), "gru.py", "exec"), module.__dict__)
    yield module
    del sys.modules["gru"]


def queries_of(videos: int) -> VideoQueries:
    return VideoQueries(queries=torch.randn(videos, 5, 8, 16), class_logits=torch.randn(videos, 5, 8, 4),
                        mask_embeddings=torch.randn(videos, 5, 8, 12))


def test_a_new_head_is_one_file_of_under_80_lines_and_one_row():
    assert len(block("python").splitlines()) < 80
    assert [line[0] for line in block("diff").splitlines() if line[0] != " "] == ["+"]


@pytest.mark.parametrize("row", ROWS)
def test_a_head_is_named_by_its_row_and_by_the_recipes_that_use_it_alone(row):
    module = f"model.cross_clip.{row.partition('.')[0]}"
    users = {path.relative_to(ROOT).as_posix() for room in ("model", "pipeline", "jobs")
             for path in (ROOT / room).rglob("*.py") if f"from {module} import" in path.read_text()}
    assert {user for user in users if not user.startswith("jobs/recipes/")} == set()


def test_every_head_of_the_table_stands_in_the_page():
    assert [head.kind for head in HEADS if f"`{head.kind}`" not in PAGE] == []


def test_the_head_of_the_page_starts_at_the_near_online_result_and_a_batch_equals_its_videos(page):
    torch.manual_seed(0)
    head = page.GRUHeadConfig(num_classes=3, dim=16, embedding=12).build()
    queries = queries_of(2)
    (together,) = head(queries)
    torch.testing.assert_close(together.class_logits, queries.class_logits.mean(1))
    torch.testing.assert_close(together.mask_embeddings, queries.mask_embeddings)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    (together,) = head(queries)
    for video in range(2):
        (alone,) = head(VideoQueries(**{name: getattr(queries, name)[video:video + 1] for name in (
            "queries", "class_logits", "mask_embeddings")}))
        torch.testing.assert_close(together.class_logits[video], alone.class_logits[0])
        torch.testing.assert_close(together.mask_embeddings[video], alone.mask_embeddings[0])


@pytest.mark.parametrize(("changes", "complaint"), [
    ({"dim": 32}, r"stage_two\.head\.dim=16 does not fit .* dim=32; set stage_two\.head\.dim=32"),
    ({"pixel_dim": 8}, r"set stage_two\.head\.embedding=8"),
    ({"aligned": False}, r"of kind gru reads queries in one order"),
])
def test_the_head_of_the_page_is_refused_where_the_queries_are_others(page, changes, complaint):
    config = page.GRUHeadConfig(num_classes=3, dim=16, embedding=12)
    shapes = {"num_classes": 3, "num_queries": 8, "dim": 16, "pixel_dim": 12}
    config.reads.refuse_unfit(config, QueryShapes(**shapes), setting="stage_two.head")
    with pytest.raises(ValueError, match=complaint):
        config.reads.refuse_unfit(config, QueryShapes(**{**shapes, **changes}), setting="stage_two.head")


@pytest.mark.long
def test_the_head_of_the_page_trains_from_a_cache_and_is_scored(tmp_path):
    tree = tree_with_the_head(tmp_path / "tree")
    cache_queries.main(untrained_on_shards(tmp_path / "runs" / "demo"))
    # The page names the demo, which takes minutes; `tiny` has the same networks.
    path = written(block("toml"), tmp_path)
    path.write_text(path.read_text().replace('base = "demo"', 'base = "tiny"'))
    words = [shlex.split(line) for line in block("sh").splitlines()]
    assert all(line[:2] == ["python", "-m"] and line[3:5] == ["--recipe", "gru.toml"] for line in words)
    commands = [(line[2], *line[6::2]) for line in words]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    result = subprocess.run([sys.executable, "-c", ALONE.format(commands=commands)], cwd=tmp_path, env=environment,
                            capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    card = json.loads((tmp_path / "runs/gru/stage_two/model/model.json").read_text())
    assert card["config"]["kind"] == "gru"
    assert json.loads((tmp_path / "runs/gru/scores/offline/scores.json").read_text())["videos"] == 4
