"""A system in the Hub's own format: huggingface_hub reads its model card, uploads it and downloads it."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from jobs.handover.bundle import write_bundle
from jobs.handover.hub import from_hub, push_to_hub, write_readme
from tests.untrained_run import untrained_run, write_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    recipe = untrained_run(tmp_path_factory.mktemp("hub") / "run")
    folder = recipe.run_folder.parent / "bundle"
    write_readme(folder, write_bundle(folder, recipe, "near_online"))
    return folder


def test_huggingface_hub_reads_the_model_card(bundle):
    card = huggingface_hub.ModelCard.load(bundle / "README.md")
    card.validate = None        # it would ask the Hub
    assert card.data.library_name == "maxtron-on-ray"
    assert "near_online" in card.data.tags


def test_a_folder_is_opened_like_a_repository(bundle, tmp_path):
    results = from_hub(str(bundle)).predict(write_video(tmp_path / "video.mp4"))
    assert len(results.panoptic.frame_names) == 5


def test_what_is_uploaded_is_what_opens(bundle, tmp_path, monkeypatch):
    """The files that huggingface_hub chooses for the commit, laid into a folder, are a whole bundle."""
    (bundle / "notes.txt").write_text("stays here")
    repository = tmp_path / "repository"

    class Client(huggingface_hub.HfApi):
        def create_repo(self, *_, **options):
            assert options["private"]

        def create_commit(self, *_, operations, **__):
            for operation in operations:
                path = repository / operation.path_in_repo
                path.parent.mkdir(parents=True, exist_ok=True)
                with operation.as_file() as file:
                    path.write_bytes(file.read())
            return "commit"

        def preupload_lfs_files(self, *_, **__):
            pass

    monkeypatch.setattr(huggingface_hub, "HfApi", Client)
    push_to_hub(bundle, "owner/name")
    assert not (repository / "notes.txt").exists()
    assert (repository / "README.md").read_bytes() == (bundle / "README.md").read_bytes()
    sent = from_hub(str(repository)).segmenter.state_dict()
    for name, value in from_hub(str(bundle)).segmenter.state_dict().items():
        assert value.equal(sent[name])
