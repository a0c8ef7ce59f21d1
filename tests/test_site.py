"""The site of the documents has every page once, and its page of the Python call names what is there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import maxtron_on_ray

ROOT = Path(__file__).resolve().parents[1]
API = ROOT / "docs" / "api.md"


def pages(entry) -> list[str]:
    """The files in a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages(part)]


def test_the_navigation_has_every_page_once():
    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_page_of_the_call_names_every_public_name():
    named = re.findall(r"^::: (\S+)$", API.read_text(), flags=re.M)
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert getattr(import_module(module), attribute).__doc__
    assert {name.rpartition(".")[2] for name in named} == set(maxtron_on_ray.__all__)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install mkdocs-material 'mkdocstrings[python]'")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path)))
    assert "load_system" in (tmp_path / "api" / "index.html").read_text()
