"""The differences that a comparison of all recipes with the released code found, by number.

The decision about each is derived from the facts and deviations of its number, never from this list.
"""

DECISIONS = {
    "D1": "VITA starts from its own pre-training on COCO, with the head",
    "D2": "Tube-Link, panoptic: the segmentation losses of key and reference clip are added",
    "D3": "YouTube-VIS: training never crops; VITA's long side is at most 768 pixels",
    "D4": "VIPSeg: colours are drawn for each frame",
    "D5": "stage two trains on fresh views, with copy-paste on VIPSeg",
    "D6": "Swin-L of Tube-Link and VITA starts from a COCO instance model",
    "D7": "offline heads start with a norm after each residual, and their copied norms learn",
    "D8": "a video is drawn as often as it has windows; key frames without an object never",
    "D9": "Tube-Link: a crop without an object in some frame is drawn again",
    "D10": "Tube-Link, panoptic and semantic: training crops squares",
    "D11": "VITA: a window on half of the stills and videos, of one size, that moves",
    "D12": "YouTube-VIS, stage two: uncertain points count more, and videos fill the window",
    "D13": "the released file of semantic video on VIPSeg reads VSPW",
    "D14": "YouTube-VIS: a training batch is padded to multiples of 32, not to one size",
    "D15": "VSPW: training clips skip every other frame",
    "D16": "VSPW, Swin-L: frozen stages are in evaluation mode",
    "D17": "Swin-B on VIPSeg and the semantic Swin-L train with 32 clips a step",
    "D18": "test frames of Tube-Link and VITA are scaled by their own rules, mmcv's without anti-aliasing",
    "D19": "VITA trains and is tested in half precision",
    "D20": "VIPSeg, stage two trains in half precision",
    "D21": "COCO kMaX: an image with few labelled pixels is drawn again",
    "D22": "weight decay of norms, relative positions and layer scales as each script has it",
    "D23": "COCO instances: images without an object are left out",
    "D24": "frozen parts are outside the gradient norm",
    "D25": "VIPSeg: quirks of the released code in sampling, copy-paste, merging and the class loss",
}
