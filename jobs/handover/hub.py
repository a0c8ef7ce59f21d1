"""A system among the models of the Hugging Face Hub: the files of its bundle, and a model card in the Hub's format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.handover.bundle import CARD, FILES, open_bundle
from pipeline.files import atomic_write
from pipeline.system import System

README = "README.md"
TEXT = """# {recipe}

A video segmentation system of maxtron-on-ray, mode `{mode}`. The weights are safetensors, and nothing is unpickled when
they are loaded.

```python
from maxtron_on_ray import from_hub
results = from_hub("OWNER/NAME").predict("my_video.mp4")
```
"""


def write_readme(folder: Path, card: Mapping[str, Any]) -> None:
    """Write the model card of the bundle in a folder. card: the content of `system.json`."""
    from huggingface_hub import ModelCard, ModelCardData

    facts = ModelCardData(library_name="maxtron-on-ray", pipeline_tag="image-segmentation",
                          tags=["video-segmentation", card["mode"]])
    readme = ModelCard(f"---\n{facts.to_yaml()}\n---\n{TEXT.format(**card)}")
    atomic_write(folder / README, readme.content.encode())


def push_to_hub(folder: Path | str, repository: str, *, private: bool = True) -> str:
    """Upload the bundle in a folder; returns the address of the commit.

    repository: "owner/name"; it is created where it does not exist. The token is that of `hf auth login` or HF_TOKEN.
    Raises the errors of `open_bundle` before anything is sent, and those of huggingface_hub.
    """
    from huggingface_hub import HfApi

    open_bundle(folder)
    client = HfApi(library_name="maxtron-on-ray")
    client.create_repo(repository, private=private, exist_ok=True)
    return str(client.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add a system",
                                    allow_patterns=[README, CARD, *(f"**/{name}" for name in FILES)]))


def from_hub(repository: str, *, revision: str | None = None, device: str = "cpu") -> System:
    """The system in a repository of the Hub, or in a folder on this machine.

    repository: "owner/name" or a path. revision: a branch, a tag or a commit. Only JSON and safetensors are downloaded.
    Raises the errors of `open_bundle` and those of huggingface_hub.
    """
    if Path(repository).is_dir():
        return open_bundle(repository, device=device)
    from huggingface_hub import snapshot_download

    folder = snapshot_download(repository, revision=revision, library_name="maxtron-on-ray",
                               allow_patterns=[CARD, *(f"**/{name}" for name in FILES)])
    return open_bundle(folder, device=device)
