"""A system in the Hub's own format: huggingface_hub reads its model card, uploads it and downloads it."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from jobs.handover.bundle import write_bundle
from jobs.handover.hub import from_hub, push_to_hub, write_readme
from tests.jobs.handover.hub_server import COMMIT, hub_server
from tests.untrained_run import untrained_run, write_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    recipe = untrained_run(tmp_path_factory.mktemp("hub") / "run")
    folder = recipe.run_folder.parent / "bundle"
    write_readme(folder, write_bundle(folder, recipe, "near_online"))
    return folder


def test_huggingface_hub_reads_the_model_card(bundle):
    card = huggingface_hub.ModelCard.load(bundle / "README.md")
    assert card.data.library_name == "maxtron-on-ray"
    assert "near_online" in card.data.tags


def test_a_folder_is_opened_like_a_repository(bundle, tmp_path):
    results = from_hub(str(bundle)).predict(write_video(tmp_path / "video.mp4"))
    assert len(results.panoptic.frame_names) == 5


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on this machine, which huggingface_hub uses in the place of the public one."""
    with hub_server() as server:
        settings = huggingface_hub.constants        # what HF_ENDPOINT and its like set at the import
        monkeypatch.setattr(settings, "HUGGINGFACE_CO_URL_TEMPLATE",
                            settings.HUGGINGFACE_CO_URL_TEMPLATE.replace(settings.ENDPOINT, server.address))
        monkeypatch.setattr(settings, "ENDPOINT", server.address)
        monkeypatch.setattr(settings, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(settings, "HF_HUB_DISABLE_XET", True)
        yield server


def test_what_is_uploaded_is_what_is_downloaded_and_opens(bundle, tmp_path, hub):
    (bundle / "notes.txt").write_text("stays here")
    assert COMMIT in push_to_hub(bundle, "owner/name")
    assert hub.created["visibility"] == "private"
    assert hub.files.keys() == {"README.md", "system.json", "stage_one/model/model.json",
                                "stage_one/model/model.safetensors"}
    assert all((bundle / name).read_bytes() == content for name, content in hub.files.items())
    hub.files["stage_one/model/optimizer.pkl"] = b"never asked for"
    downloaded = from_hub("owner/name").segmenter.state_dict()
    for name, value in from_hub(str(bundle)).segmenter.state_dict().items():
        assert value.equal(downloaded[name])
    names = {path.name for path in (tmp_path / "cache").rglob("snapshots/**/*") if path.is_file()}
    assert names == {"system.json", "model.json", "model.safetensors"}
