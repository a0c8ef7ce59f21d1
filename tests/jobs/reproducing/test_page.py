"""docs/reproduce.md has the tables of `papers.toml` as they are now."""

from __future__ import annotations

import re

from jobs.recipes import RECIPES, find_recipe
from tests.jobs.reproducing.page import PAGE, page


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "run `python -m tests.jobs.reproducing`"


def test_every_official_recipe_is_on_the_page():
    named = set(re.findall(r"`(\w+)`", PAGE.read_text()))
    assert {name for name in RECIPES if find_recipe(name).world is None} <= named
