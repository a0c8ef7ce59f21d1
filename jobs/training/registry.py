"""Registered models: the winners, with the alias `champion`, and what was handed over, with the alias `newest`.

The functions take MLflow's client and may be called again: versions are found by their run or by their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

CHAMPION = "champion"
SCORE = "score_"            # start of the tag that holds a score by which a version became champion


def is_refusal(error: Exception) -> bool:
    """Whether a tracker that works refused one request, such as that for a run that does not exist."""
    status = getattr(error, "get_http_status_code", None)       # of MLflow's own exceptions
    return status is not None and 400 <= status() < 500 and status() not in (401, 403, 408, 429)


def register(client: Any, run_id: str, values: Mapping[str, Any]) -> str:
    """Register a folder of a run's artifacts as a version of a model, once a run and content; returns the version.

    It becomes `newest` unless a newer run has registered one. values: `name`, `folder` and `tags`.
    """
    name = values["name"]
    if not any(model.name == name for model in client.search_registered_models(f"name='{name}'")):
        client.create_registered_model(name)
    versions = {int(version.version): version for version in client.search_model_versions(f"name='{name}'")}
    sha256 = values["tags"].get("sha256")
    own = [number for number, version in versions.items()
           if version.run_id == run_id or (sha256 and version.tags.get("sha256") == sha256)]
    if not own:
        source = f"{client.get_run(run_id).info.artifact_uri}/{values['folder']}"
        own = [int(client.create_model_version(name, source=source, run_id=run_id, tags=values["tags"]).version)]
    began = client.get_run(run_id).info.start_time
    newest = client.get_registered_model(name).aliases.get("newest")
    if newest is None or _began(client, versions.get(int(newest))) <= began:
        client.set_registered_model_alias(name, "newest", str(own[0]))
    return str(own[0])


def promote(client: Any, values: Mapping[str, Any], register_it: Callable[[], str]) -> str:
    """Give the alias `champion` to the version with these weights if it is better than the champion; returns what was
    done, in words. Weights that do not win get no version.

    values: `name` of the model, `sha256` of its weights, `metric`, `score`, whether `lower` is better, and a
    `description`. register_it: registers the weights where no version has them, and returns the version.
    """
    name = values["name"]
    metric = values["metric"]
    versions = client.search_model_versions(f"name='{name}'")
    own = next((str(version.version) for version in versions if version.tags.get("sha256") == values["sha256"]), None)
    champion = next((version for version in versions if str(version.version) == _champion(client, name)), None)
    if champion is not None and str(champion.version) != own:
        known = champion.tags.get(f"{SCORE}{metric}")
        if known is None:
            return (f"version {champion.version} of {name} stays the champion: it was not chosen by {metric}, so the "
                    "two cannot be compared; name the number by which it was chosen in --metric")
        if (values["score"] >= float(known)) if values["lower"] else (values["score"] <= float(known)):
            return f"version {champion.version} of {name} stays the champion: {float(known):.2f} {metric}"
    own = own or register_it()
    client.set_model_version_tag(name, own, f"{SCORE}{metric}", str(values["score"]))
    client.update_model_version(name, own, description=values["description"])
    client.set_registered_model_alias(name, CHAMPION, own)
    return f"version {own} of {name} is the champion: {values['score']:.2f} {metric}"


def _champion(client: Any, name: str) -> str | None:
    """The version that is the champion of a model; None without one, or without the model."""
    models = client.search_registered_models(f"name='{name}'")
    return next((str(model.aliases[CHAMPION]) for model in models if CHAMPION in model.aliases), None)


def _began(client: Any, version: Any) -> int:
    """When the run of a version of a model began; 0 where that run is gone."""
    try:
        return 0 if version is None or not version.run_id else client.get_run(version.run_id).info.start_time
    except Exception as error:
        if not is_refusal(error):
            raise
        return 0
