"""Texts of other people as they are printed."""

from __future__ import annotations

import pytest

from pipeline.printable import without_secrets


@pytest.mark.parametrize(("text", "printed"), [
    ("recording in MLFLOW_TRACKING_URI=https://me:s3cret@tracker:5000", "https://***@tracker:5000"),
    ("Invalid url: http://t0ken-s3cret@tracker/api?x=1", "http://***@tracker/api?x=1"),
    ("postgresql://me:s3c@ret@db/runs and mysql://s3cret@db", "postgresql://***@db/runs and mysql://***@db"),
    ("at http://tracker/#/experiments?access_token=s3cret&page=2", "?access_token=***&page=2"),
    ("s3://bucket/run?X-Amz-Signature=s3cret", "?X-Amz-Signature=***"),
])
def test_an_address_is_printed_without_what_lets_others_in(text, printed):
    assert without_secrets(text).endswith(printed)
    assert "s3cret" not in without_secrets(text)


@pytest.mark.parametrize("text", ["sqlite:////runs/me@work/tracking.db?timeout=60", "http://tracker:5000/me@home",
                                  "git@github.com:me/project", "predict.input=/videos/a@b?.mp4", "file:///data/x@y",
                                  "s3://bucket/run/@1"])
def test_other_addresses_and_names_are_printed_as_they_are(text):
    assert without_secrets(text) == text
