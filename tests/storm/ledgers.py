"""What MLflow holds of the verbs of a run, in a form in which two runs of the same recipe can be compared."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from typing import Any

from mlflow import MlflowClient

from jobs.training.record import waiting
from jobs.training.tracking import TrackingConfig, stored_ids
from tests.storm.forked import forked
from tests.storm.small_run import SYNC, SmallRun
from tests.storm.trials import Damage, refuse_crash, refuse_unless

FIELDS = ("status", "parameters", "numbers", "files", "models")
TIMES = ("seconds", "per_second", "wait", "gib", "speed", "attempt")     # parts of names whose values differ each time


def ledger(run: SmallRun, verb: str) -> dict[str, Any]:
    """Name of a run of MLflow -> everything that it holds, for the last run of a verb and its trials.

    `tracking.json` of the run names its tracker. Called in a process of its own, since MLflow starts threads.
    """
    ids = stored_ids(run.place / "run")
    client = MlflowClient(ids["uri"], registry_uri=ids["uri"])
    experiment = client.get_experiment_by_name(TrackingConfig().project).experiment_id
    name = {"sweep": "sweep_sweep", "evaluate": "evaluate_offline"}.get(verb, verb)
    recorded = client.search_runs([experiment], f"tags.verb = '{name}'", order_by=["attributes.start_time DESC"])
    below = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{recorded[0].info.run_id}'")
    return {f"{position}": entry(client, found) for position, found in enumerate(
        [recorded[0], *sorted(below, key=lambda found: found.info.run_name)])}


def entry(client: MlflowClient, found: Any) -> dict[str, Any]:
    """Everything that one run of MLflow holds, without times and values that depend on the machine."""
    run_id = found.info.run_id
    return {"status": found.info.status, "parameters": found.data.params,
            "tags": sorted(found.data.tags),
            "numbers": {name: numbers(client, run_id, name) for name in sorted(found.data.metrics)},
            "files": sorted(files(client, run_id)),
            "models": dict(Counter(version.name for version in
                                   client.search_model_versions(f"run_id = '{run_id}'")))}


def numbers(client: MlflowClient, run_id: str, name: str) -> list[list[float | None]]:
    """(step, value) in the order in which they were logged; a number without steps, of which the last counts, once."""
    history = client.get_metric_history(run_id, name)
    history = history[-1:] if not any(metric.step for metric in history) else history
    return [[metric.step, None if _passes(name) else metric.value] for metric in history]


def files(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    """The names of all artifacts of a run."""
    for file in client.list_artifacts(run_id, folder):
        if file.is_dir:
            yield from files(client, run_id, file.path)
        else:
            yield file.path


def logged(run: SmallRun, verb: str) -> dict[str, Any]:
    """What the tracker of the run holds of a verb now."""
    ended = forked(lambda: print(json.dumps(ledger(run, verb))) or 0, run.folder / "ledger.txt")
    if ended.code:
        raise RuntimeError(ended.said)
    return json.loads(ended.said.splitlines()[-1])


def undisturbed(run: SmallRun, verb: str) -> dict[str, Any]:
    """What it holds without faults; the place of the run is as before afterwards."""
    file = run.folder / f"{verb}.ledger"
    if not file.exists():
        kept = run.place.rename(run.folder / "kept")
        run.bring(run.after(verb))
        file.write_text(json.dumps(logged(run, verb)))
        shutil.rmtree(run.place)
        kept.rename(run.place)
    return json.loads(file.read_text())


def refuse_unlogged(run: SmallRun, verb: str, **settings: Any) -> None:
    """Raise Damage unless `sync_tracking` logs the rest: then MLflow holds what it does without any fault."""
    ended = run.run(SYNC, **settings)
    refuse_crash(run, verb, ended)
    refuse_unless(ended.code == 0, "what could not be logged is not logged later", ended)
    if left := waiting(run.place / "run"):
        raise Damage(f"{left} things still wait to be logged: {ended.said[-800:]}")
    if missing := differences(logged(run, verb), undisturbed(run, verb)):
        raise Damage(f"MLflow does not hold what it does without faults: {missing}")


def differences(present: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Name -> both values, of the fields in which a ledger is not what it should be. A run may have more tags."""
    pairs = {}
    for run in present.keys() | wanted.keys():
        ours = present.get(run, {})
        theirs = wanted.get(run, {})
        missing = set(theirs.get("tags", ())) - set(ours.get("tags", ()))
        pairs |= {f"{run}.{field}": (ours.get(field), theirs.get(field)) for field in FIELDS}
        pairs |= {f"{run}.tags": (sorted(missing), [])}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _passes(name: str) -> bool:
    return any(part in name.lower() for part in TIMES)
