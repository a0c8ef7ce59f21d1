"""What caching, evaluating and predicting share: an actor built from the recipe, and the rows it works through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jobs.recipes.schema import Recipe
from pipeline.streams import actor_stream


def results_of(actor: type, rows: list[dict[str, Any]], recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Yield what `actor(recipe=recipe)` returns for each row's values, as they finish.

    On the cluster a pool of actors shares the rows; under `cluster.in_process` one works here, row after row.
    Raises what the actor raises.
    """
    arguments = {"recipe": recipe}
    cluster = recipe.cluster
    if not cluster.in_process:
        return actor_stream(rows, actor, arguments=arguments, actors=cluster.actors, cpus=cluster.cpus_per_actor,
                            gpus=cluster.gpus_per_actor)
    here = actor(**arguments)
    return (here(**row) for row in rows)
