"""Re-read the shards of a recipe (checksums, images, labels, counts) and say what is wrong with them.

    python -m jobs.verify_shards --recipe tiny
"""

from __future__ import annotations

from typing import Any

from jobs.recipes.schema import Recipe
from jobs.training.progress import say
from jobs.verb import run
from pipeline.errors import BadInput
from pipeline.shards import verify


def main(recipe: Recipe) -> dict[str, Any]:
    """Verify the splits of the recipe, and its stills; raises BadInput when anything was found."""
    findings = {name: verify(recipe.shards_of(name)) for name in recipe.sources}
    for split, found in findings.items():
        say(f"{split}: {len(found)} findings", *found)
    if count := sum(map(len, findings.values())):
        raise BadInput("damaged-shards", f"{count} findings, listed above.", file=recipe.road / "shards",
                       cure="Delete the files that are named and run jobs.make_shards again: it refills only those.")
    return {split: len(found) for split, found in findings.items()}


if __name__ == "__main__":
    run(main)
