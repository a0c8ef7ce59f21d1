"""Read the query cache of a recipe again and report every fault, with the file and the cure.

Looked at are the manifest, digests and fingerprints, the schema, the numbers of views and clips, checksums and values,
and whether the cache was made by the recipe's segmenter, from its shards and with its settings. With
`stage_two.validation`, the cache from which heads are scored is read as well.

    python -m jobs.verify_cache --recipe tiny
"""

from __future__ import annotations

from typing import Any

from jobs.cache_queries import cache_folder, cache_source, expected_source, for_validation, open_cache
from jobs.console import say
from jobs.recipes.schema import Recipe
from jobs.verb import run
from pipeline.errors import BadInput
from pipeline.query_cache import verify_cache


def main(recipe: Recipe) -> dict[str, Any]:
    """Verify the cache, and that for scores.

    Raises BadInput for findings; FileNotFoundError or Mismatch where there is no such cache.
    """
    caches = [recipe] if recipe.stage_two.validation is None else [recipe, for_validation(recipe)]
    counts = {str(cache_folder(each)): findings_of(each) for each in caches}
    if count := sum(counts.values()):
        raise BadInput("damaged-cache", f"there are {count} findings, listed above.",
                       file=", ".join(folder for folder, found in counts.items() if found),
                       cure="Run jobs.cache_queries again after what they say: it makes only what is missing.")
    return {"cache": str(cache_folder(recipe)), "findings": 0}


def findings_of(recipe: Recipe) -> int:
    """Print the findings about the cache of a recipe, and count them."""
    folder = cache_folder(recipe)
    if not (folder / "manifest.json").is_file():
        open_cache(recipe)      # says how the caches that are there differ, or that there is none
    has_shards = all((recipe.shards_of(split) / "manifest.json").is_file() for split in recipe.cache.splits)
    findings = verify_cache(folder, expected=cache_source(recipe) if has_shards else expected_source(recipe))
    say(f"{folder}: {len(findings)} findings", *findings,
        *([] if has_shards else ["not looked at: the shards, which are not here"]))
    return len(findings)


if __name__ == "__main__":
    run(main)
