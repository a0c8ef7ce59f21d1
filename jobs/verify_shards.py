"""Read the shards of a recipe again and report every error in checksums, images, labels and counts.

    python -m jobs.verify_shards --recipe tiny
"""

from __future__ import annotations

from typing import Any

from jobs.console import say
from jobs.recipes.schema import Recipe
from jobs.verb import run
from pipeline.errors import BadInput
from pipeline.shards import verify


def main(recipe: Recipe) -> dict[str, Any]:
    """Verify the splits of the recipe, and its stills. Raises BadInput when there are findings."""
    findings = {name: verify(recipe.shards_of(name)) for name in recipe.sources}
    for split, lines in findings.items():
        say(f"{split}: {len(lines)} findings", *lines)
    if count := sum(map(len, findings.values())):
        shards = recipe.shards_run / "shards"
        raise BadInput("damaged-shards", f"there are {count} findings, listed above.", file=shards,
                       cure="Delete the files that are named and run jobs.make_shards again: it writes only those.")
    return {split: len(lines) for split, lines in findings.items()}


if __name__ == "__main__":
    run(main)
