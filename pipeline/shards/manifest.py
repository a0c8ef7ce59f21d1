"""The manifest of a shard set, checked before anything in it is used: a set may have been made by others."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from model.labels import ClassTable
from pipeline.errors import BadInput
from pipeline.file_names import can_name_a_file
from pipeline.foreign_files import LARGEST_JSON, parse_json, read_file
from pipeline.shards.format import MANIFEST, SCHEMAS

MAKE_AGAIN = "Delete it and run make_shards again: finished shards are kept."
_FIELDS = {"shards": list, "config": dict, "categories": dict, "split": str, "plan": str, "totals": dict}
_COUNTS = ("size", "videos", "clips", "frames")


def read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """The manifest of a folder, and its sha256, which is the fingerprint of the data set.

    Raises FileNotFoundError where the set is not finished, ValueError for another schema, BadInput "damaged-shard" for
    a manifest that is cut off or damaged, and "bad-name" for one that lists a shard under what is not a file name.
    """
    path = folder / MANIFEST
    try:
        content = read_file(path, largest=LARGEST_JSON)
        manifest = parse_json(content)
    except FileNotFoundError:
        raise FileNotFoundError(f"no {MANIFEST} in {folder}: it is not a shard set, or make_shards has not finished. "
                                "Run make_shards (again) on this folder; finished shards are kept.") from None
    except BadInput:
        raise
    except ValueError as error:
        raise BadInput("damaged-shard", f"it cannot be read ({error}).", file=path, cure=MAKE_AGAIN) from None
    if isinstance(manifest, dict) and manifest.get("schema") not in SCHEMAS:
        raise ValueError(f"shard set {folder} has schema {manifest.get('schema')!r}, but this version reads "
                         f"{' and '.join(map(str, SCHEMAS))}. "
                         "Make the shards again with this version, or use the version that made them.")
    refuse_unfit_manifest(manifest, path)
    return manifest, hashlib.sha256(content).hexdigest()


def refuse_unfit_manifest(manifest: Any, path: Path) -> None:
    """Raise BadInput for a manifest in which a field is missing or has another type, or a shard has no plain name."""
    def damaged(what: str) -> BadInput:
        return BadInput("damaged-shard", f"the manifest is damaged: {what}.", file=path, cure=MAKE_AGAIN)

    if not isinstance(manifest, dict):
        raise damaged("it is no object with fields")
    if wrong := [name for name, kind in _FIELDS.items() if not isinstance(manifest.get(name), kind)]:
        raise damaged(f"its field {wrong[0]!r} is missing or has a wrong type")
    if not _is_count(manifest["config"].get("clip_frames"), least=1):
        raise damaged("config.clip_frames is no number of frames")
    try:
        ClassTable.from_json(manifest["categories"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(f"its categories cannot be read ({error})") from None
    for shard in manifest["shards"]:
        if not isinstance(shard, dict) or not all(_is_count(shard.get(name)) for name in _COUNTS):
            raise damaged(f"a shard lacks one of the numbers {', '.join(_COUNTS)}")
        if not can_name_a_file(shard.get("name")) or "\\" in shard["name"] or shard["name"].startswith("-"):
            raise BadInput("bad-name", f"the manifest lists a shard as {str(shard.get('name'))[:80]!r}, which is not "
                           "the name of a file in its folder.", file=path,
                           cure="Do not use this set, or make the shards again from their source.")


def _is_count(value: Any, *, least: int = 0) -> bool:
    return type(value) is int and least <= value < 2**63
