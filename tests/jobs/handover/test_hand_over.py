"""A handed-over system gives the results of `jobs.predict`: from a server, and in an environment without a clone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from jobs import hand_over, predict
from jobs.hand_over import HandOverLine
from jobs.handover.answers import answers
from jobs.handover.bundle import open_bundle
from model.contracts import VideoResults
from pipeline.errors import BadInput, Mismatch
from pipeline.predictions import read_predictions, track_rows
from pipeline.seals import sealed, unsealed
from tests.storm.mlflow_server import free_port
from tests.untrained_run import predicting, untrained_run, write_video

pytestmark = pytest.mark.slow       # MLflow's store and model take a while to be made

ABSENT = ("ray", "webdataset", "tyro", "maxtron", "__editable__")     # starts of names that the fresh environment lacks

LOAD = """
import json, sys
import mlflow, pandas
unpickled = []
sys.addaudithook(lambda event, words: unpickled.append(words) if event == "pickle.find_class" else None)
model = mlflow.pyfunc.load_model("models:/video_segmenter@newest")
assert not unpickled, unpickled
table = model.predict(pandas.DataFrame([{"video": sys.argv[1]}, {"video": sys.argv[1] + ".gone"}]))
print(json.dumps(table.to_dict("records")))
"""


@pytest.fixture(scope="module")
def handed(tmp_path_factory):
    """A run with its handed-over system, a video, and what `jobs.predict` makes of it."""
    folder = tmp_path_factory.mktemp("handed")
    recipe = untrained_run(folder / "runs" / "run")
    video = write_video(folder / "square.mp4")
    predict.main(predicting(recipe, video, folder / "out"))
    said = hand_over.main(recipe, HandOverLine())
    return recipe, video, folder / "out", said


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """A virtual environment of its own, with links to the packages of this one and neither the project nor Ray."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    [here] = [Path(path) for path in sys.path if path.endswith("site-packages")][:1]
    for package in here.iterdir():
        if not package.name.startswith(ABSENT):
            (site / package.name).symlink_to(package)
    server = folder / "bin" / "uvicorn"         # which MLflow starts by its name
    server.write_text(f"#!{folder / 'bin' / 'python'}\nfrom uvicorn.main import main\nmain()\n")
    server.chmod(0o755)
    return folder / "bin" / "python"


def environment(recipe) -> dict[str, str]:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**variables, "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_URI": f"sqlite:///{recipe.run_folder.parent / 'tracking.db'}"}


def plain(rows) -> list[tuple]:
    """What rows say of objects, in an order of their own."""
    found = [(row["video"], row["category_id"], row["masks"], row["frames"], row["times"]) for row in rows]
    return sorted(found, key=str)


def predicted(output: Path) -> list[tuple]:
    """The rows of the panoptic maps that `jobs.predict` wrote."""
    predictions = read_predictions(output)
    times = json.loads((output / "tracks.json").read_text())[0]["times"]
    rows = [row for video in predictions.values()
            for row in track_rows(VideoResults(panoptic=video), predictions.classes, times=times)]
    return plain([row | {name: json.dumps(row[name]) for name in ("masks", "frames", "times")} for row in rows])


def test_the_bundle_and_the_model_give_what_predict_gives(handed):
    _, video, output, said = handed
    rows = list(answers(open_bundle(said["system"]), [{"video": str(video)}]))
    assert len(rows) >= 2
    assert plain(rows) == predicted(output)
    from_bytes = list(answers(open_bundle(said["system"]), [{"content": video.read_bytes(), "name": "square.mp4"}]))
    assert from_bytes == rows


def test_no_file_of_the_model_is_a_pickle(handed):
    suffixes = {path.suffix for path in Path(handed[3]["model"]).rglob("*") if path.is_file()}
    assert suffixes.isdisjoint({".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib"})
    assert ".safetensors" in suffixes


def test_a_video_that_cannot_be_read_costs_no_other(handed, monkeypatch):
    _, video, _, said = handed
    system = open_bundle(said["system"])
    rows = list(answers(system, [{"content": b"no video", "name": "bad.mp4"}, {"video": str(video)}, {}]))
    assert rows[0]["video"] == "bad"
    assert rows[0]["error"]
    assert not any(row["error"] for row in rows[1:-1])
    assert "neither `video` nor `content`" in rows[-1]["error"]
    monkeypatch.setenv("__pyfunc_model_path__", "/served")
    [refused] = answers(system, [{"video": str(video)}])
    assert "a server opens no file of its own" in refused["error"]


def test_handing_over_again_makes_no_second_version(handed):
    recipe, _, _, said = handed
    assert hand_over.main(recipe, HandOverLine())["registered_version"] == said["registered_version"] == "1"


def test_a_bundle_with_other_weights_is_refused(handed, tmp_path):
    folder = tmp_path / "system"
    shutil.copytree(handed[3]["system"], folder)
    card = folder / "stage_one" / "model" / "model.json"
    content = {name: value for name, value in json.loads(card.read_text()).items() if name != "seal"}
    card.write_text(json.dumps({**content, "weights_sha256": "0" * 64}))
    with pytest.raises(Mismatch, match=r"holds weights 000000000000\.\.\."):
        open_bundle(folder)
    with pytest.raises(FileNotFoundError, match=r"python -m jobs\.hand_over writes one"):
        open_bundle(tmp_path)


def test_a_bundle_opens_nothing_outside_itself(handed, tmp_path):
    folder = tmp_path / "system"
    shutil.copytree(handed[3]["system"], folder)
    card = unsealed(json.loads((folder / "system.json").read_text()))
    weights = {"../elsewhere": "0" * 64}
    (folder / "system.json").write_text(json.dumps(sealed({**card, "weights": weights})))
    with pytest.raises(BadInput, match=r"it lists '\.\./elsewhere', where no model of a system lies"):
        open_bundle(folder)


@pytest.mark.long
def test_a_fresh_environment_loads_it_by_alias_and_unpickles_nothing(handed, fresh, tmp_path):
    recipe, video, output, _ = handed
    done = subprocess.run([fresh, "-P", "-c", LOAD, video], cwd=tmp_path, env=environment(recipe), capture_output=True,
                          text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    *rows, gone = json.loads(done.stdout.splitlines()[-1])
    assert plain(rows) == predicted(output)
    assert "square.mp4.gone" in gone["error"]


@pytest.mark.long
def test_a_server_answers_the_bytes_of_a_video(handed, fresh, tmp_path):
    recipe, video, output, _ = handed
    port = free_port()
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen([fresh, "-P", "-m", "mlflow", "models", "serve", "-m", "models:/video_segmenter@newest",
                               "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
                              cwd=tmp_path, env=environment(recipe) | {"PATH": f"{fresh.parent}:{os.environ['PATH']}"},
                              stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
        content = base64.b64encode(video.read_bytes()).decode()
        body = json.dumps({"dataframe_records": [{"content": content, "name": "square.mp4"}]})
        request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body.encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert plain(json.load(answer)["predictions"]) == predicted(output)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        log.close()


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    """Until a server answers."""
    ends = time.monotonic() + 240
    while time.monotonic() < ends and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(log.read_text()[-3000:])
