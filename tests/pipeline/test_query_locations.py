"""The centre of a segment is the mean place of its pixels."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.query_locations import centres


def test_centres_are_fractions_of_the_frame():
    frame = np.zeros((4, 8), np.int32)
    frame[1:3, 2:6] = 7
    frame[0, 0] = 9
    result = centres(frame)
    assert result[7] == pytest.approx((0.5, 0.5))
    assert result[9] == pytest.approx((0.5 / 8, 0.5 / 4))
    rows, columns = np.nonzero(frame == 0)
    assert result[0] == pytest.approx(((columns.mean() + 0.5) / 8, (rows.mean() + 0.5) / 4))
