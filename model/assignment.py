"""The assignment of rows to columns with the least sum."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def best_assignment(costs: ArrayLike, *, maximize: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Rows, in order, and the column of each, so that the sum of costs is least, or greatest under `maximize`.

    costs: rows x columns; the shorter side is assigned completely. Ties go as in `scipy.optimize`.
    """
    from scipy.optimize import linear_sum_assignment  # a third of a second to import, and settings need none of it

    return linear_sum_assignment(costs, maximize=maximize)
