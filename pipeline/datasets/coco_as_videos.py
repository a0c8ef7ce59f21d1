"""Maps COCO's classes to those of video data sets, so that COCO's stills can train together with videos.

COCO id -> id in the video data set. Several COCO classes may map to one; classes not listed have no counterpart.
Source: the tables of the released VITA code (below `vita/data`).
"""

from __future__ import annotations

_2021 = {1: 26, 2: 23, 3: 5, 4: 23, 5: 1, 7: 36, 8: 37, 9: 4, 16: 3, 17: 6, 18: 9, 19: 19, 21: 7, 22: 12, 23: 2, 24: 40,
         25: 18, 34: 14, 35: 31, 36: 31, 41: 29, 42: 33, 43: 34}

COUNTERPARTS: dict[str, dict[int, int]] = {
    "youtube_vis_2019": {1: 1, 2: 21, 3: 6, 4: 21, 5: 28, 7: 17, 8: 29, 9: 34, 17: 14, 18: 8, 19: 18, 21: 15, 22: 32,
                         23: 20, 24: 30, 25: 22, 35: 33, 36: 33, 41: 5, 42: 27, 43: 40},
    "youtube_vis_2021": _2021,
    "youtube_vis_2022": _2021,
    "ovis": {1: 1, 2: 21, 3: 25, 4: 22, 5: 23, 6: 25, 8: 25, 9: 24, 17: 3, 18: 4, 19: 5, 20: 6, 21: 7, 22: 8, 23: 9,
             24: 10, 25: 11},
}
