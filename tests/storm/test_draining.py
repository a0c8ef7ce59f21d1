"""A short storm of machines that are taken back while a training runs on them and on others."""

from __future__ import annotations

import pytest

from tests.storm.test_storm import storm

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_training_survives_that_one_of_its_machines_is_taken_back():
    ended = storm("-m", "tests.storm", "--kind", "drain", "--verb", "train_stage_two", "--trials", "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "| drain | train_stage_two | 1 / 1 | 1 |" in ended.stdout
