"""An object store and a tracker on a host, for all hosts. Prints the environment in which programs find both."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.object_store import object_store
from tests.storm.mlflow_server import Server, running


def main(folder: Path, address: str) -> None:
    """Serve until the host is killed."""
    with object_store(folder / "store", address=address) as environment, running(
            Server(folder / "tracker", address=address)) as tracker:
        print(json.dumps({**environment, "MLFLOW_TRACKING_URI": tracker.uri}), flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
