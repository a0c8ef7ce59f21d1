"""Read the query cache of a recipe again and report every fault, with the file and the cure.

Looked at are the manifest, digests and fingerprints, the schema, the numbers of views and clips, checksums and values,
and whether the cache was made by the recipe's segmenter, from its shards and with its settings.

    python -m jobs.verify_cache --recipe tiny
"""

from __future__ import annotations

from typing import Any

from jobs.cache_queries import cache_folder, cache_source, expected_source, open_cache
from jobs.console import say
from jobs.recipes.schema import Recipe
from jobs.verb import run
from pipeline.errors import BadInput
from pipeline.query_cache import verify_cache


def main(recipe: Recipe) -> dict[str, Any]:
    """Verify the cache. Raises BadInput for findings; FileNotFoundError or Mismatch where there is no such cache."""
    folder = cache_folder(recipe)
    if not (folder / "manifest.json").is_file():
        open_cache(recipe)      # says how the caches that are there differ, or that there is none
    has_shards = all((recipe.shards_of(split) / "manifest.json").is_file() for split in recipe.cache.splits)
    findings = verify_cache(folder, expected=cache_source(recipe) if has_shards else expected_source(recipe))
    say(f"{folder}: {len(findings)} findings", *findings,
        *([] if has_shards else ["not looked at: the shards, which are not here"]))
    if findings:
        raise BadInput("damaged-cache", f"there are {len(findings)} findings, listed above.", file=folder,
                       cure="Run jobs.cache_queries again after what they say: it makes only what is missing.")
    return {"cache": str(folder), "findings": 0}


if __name__ == "__main__":
    run(main)
