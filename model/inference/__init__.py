"""From the predictions of clips to the results of a video; `driver.py` explains the parts."""

from model.inference.alignment import Aligned, ByAlignment, QueryOrder
from model.inference.config import InferenceConfig
from model.inference.driver import Clips, ResultMaker, make_results
from model.inference.in_parts import InParts
from model.inference.linked import LinkedPanoptic
from model.inference.makers import result_makers
from model.inference.near_online import Merger, NearOnline
from model.inference.offline import FeatureSpool, Offline, QueryCollector, merge_video
from model.inference.places import with_places
from model.inference.resize import FixedCanvas, ResizeConfig
from model.inference.tube_panoptic import TubePanoptic

__all__ = ["Aligned", "ByAlignment", "Clips", "FeatureSpool", "FixedCanvas", "InParts", "InferenceConfig",
           "LinkedPanoptic", "Merger", "NearOnline", "Offline", "QueryCollector", "QueryOrder", "ResizeConfig",
           "ResultMaker", "TubePanoptic", "make_results", "merge_video", "result_makers", "with_places"]
