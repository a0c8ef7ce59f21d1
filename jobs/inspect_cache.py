"""Show what the query cache of a recipe holds: schema, bytes by column, clips, objects, queries, and its source.

    python -m jobs.inspect_cache --recipe tiny
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jobs.cache_queries import open_cache
from jobs.console import say
from jobs.recipes.schema import Recipe
from jobs.verb import run
from pipeline.query_cache import Contents, QueryCache, contents


def main(recipe: Recipe) -> dict[str, Any]:
    """Print the contents of the cache. Raises FileNotFoundError or Mismatch where there is no such cache."""
    cache = open_cache(recipe)
    inside = contents(cache)
    say(*lines(cache, inside))
    return {"cache": str(cache.folder), "videos": inside.videos, "views": len(inside.views), "clips": inside.clips,
            "bytes": inside.bytes, "bytes_per_clip": round(inside.bytes / inside.clips),
            "objects_per_clip": round(inside.objects.mean, 2), "queries": inside.queries,
            "queries_used": round(inside.used.mean, 2)}


def lines(cache: QueryCache, inside: Contents) -> Iterator[str]:
    """The report as text."""
    yield f"{cache.folder}, format {cache.manifest['schema']}, fingerprint {cache.fingerprint[:16]}"
    yield ""
    yield f"{'column':<18}{'type':<26}{'bytes a clip':>14}{'MiB':>10}{'part':>8}"
    for column in inside.columns:
        yield (f"{column.name:<18}{column.kind:<26}{column.bytes / inside.clips:>14,.0f}"
               f"{column.bytes / 2**20:>10.1f}{column.bytes / inside.bytes:>8.1%}")
    yield f"{'all':<44}{inside.bytes / inside.clips:>14,.0f}{inside.bytes / 2**20:>10.1f}{1:>8.1%}"
    yield ""
    views = ", ".join(f"view {view}: {videos}" for view, videos in inside.views.items())
    yield f"videos: {inside.videos} ({views}); clips: {inside.clips}; clips of a view: {inside.clips_of_a_video}"
    yield f"objects and stuff classes visible in a clip: {inside.objects}"
    yield (f"queries with an object in some clip of their video: {inside.used} of {inside.queries}; "
           f"{inside.idle:.0%} of the stored queries never have one")
    yield "made from:"
    yield from (f"  {name}: {json.dumps(value, sort_keys=True)}"
                for name, value in sorted(cache.manifest["made_from"].items()))


if __name__ == "__main__":
    run(main)
