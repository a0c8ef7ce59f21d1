"""The address of a tracker as a user writes it, and faults of it that MLflow names in other words or not at all."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pipeline.file_names import at_home
from pipeline.printable import HIDDEN, without_secrets

SQLITE = "sqlite:///"
IN_MEMORY = ("", ":memory:")        # names of files with which SQLite keeps nothing on disk
EXAMPLES = "a server is written as http://host:5000, a database as sqlite:////folder/tracking.db"


def whole_address(uri: str) -> str:
    """The address with the absolute path of an SQLite file, since later verbs may start in other folders.

    Raises ValueError for a `~` that stands for no folder.
    """
    name, *options = uri.removeprefix(SQLITE).split("?", 1)
    if not uri.startswith(SQLITE) or name in IN_MEMORY:
        return uri
    return "?".join([f"{SQLITE}{at_home(name).absolute()}", *options])


def usable_address(noted: str, uri: str) -> str:
    """The address of the tracker that a file notes without its password. uri: the address that this process was given.

    Raises ConnectionError where only an address that this process does not have holds the password.
    """
    if without_secrets(noted) == without_secrets(uri):
        return uri
    if HIDDEN in noted:
        raise ConnectionError(f"what waits for {noted} is logged once the whole address, with its password, is in "
                              "MLFLOW_TRACKING_URI")
    return noted


def sqlite_file(uri: str) -> Path | None:
    """The file of an address of SQLite; None for another kind of tracker."""
    name = uri.removeprefix(SQLITE).partition("?")[0]
    return Path(name) if uri.startswith(SQLITE) and name not in IN_MEMORY else None


def refuse_no_tracker(uri: str, *, folders: bool) -> None:
    """Raise ValueError for SQLite without a file, which keeps nothing, and for a folder unless MLflow takes `folders`.
    """
    kind = urlsplit(uri).scheme
    if kind == "sqlite" and sqlite_file(uri) is None:
        raise ValueError(f"the address names no file; {EXAMPLES}")
    if kind in ("", "file") and not uri.startswith("databricks") and not folders:
        raise ValueError(f"MLflow reads it as a folder and keeps no runs in folders any more; {EXAMPLES}, and "
                         "`mlflow migrate-filestore` moves the runs of a folder to a database")
