"""Caches whose table of views was changed, and those of an earlier version."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.foreign_files import own_json
from pipeline.query_cache.cache import views_of
from pipeline.query_cache.view_table import TABLE, ViewTable

COLUMNS = ("video", "view", "part", "group", "clips", "frames", "full")


def as_earlier_version(folder: Path) -> dict[str, Any]:
    """List the views in the manifest, as earlier versions did; returns the manifest."""
    manifest = own_json(folder / "manifest.json", cure="")
    table = views_of(folder, manifest)
    for index, part in enumerate(manifest["parts"]):
        part["groups"] = table.of_part(index)
    del manifest["views"]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "schema": 2}))
    (folder / TABLE).unlink()
    return json.loads((folder / "manifest.json").read_text())


def change_views(folder: Path, change: Callable[[list[dict]], None]) -> None:
    """Write the table of views again with changed rows, and list its new sha256."""
    manifest = own_json(folder / "manifest.json", cure="")
    table = views_of(folder, manifest)
    rows = [dict(zip(COLUMNS, (*row, int(table.frames[index]), int(table.full[index]))))
            for index, row in enumerate(table)]
    change(rows)
    changed = ViewTable.from_columns({name: [row[name] for row in rows] for name in COLUMNS})
    (folder / "manifest.json").write_text(json.dumps({**manifest, "views": changed.save(folder / TABLE)}))
