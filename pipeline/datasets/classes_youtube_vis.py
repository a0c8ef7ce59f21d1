"""The class tables of YouTube-VIS 2019, 2021 and 2022 and of OVIS. Ids count from 1, and all classes are things."""

from __future__ import annotations

from model.labels import ClassInfo, ClassTable

NAMES_2019 = [
    "person", "giant_panda", "lizard", "parrot", "skateboard", "sedan", "ape", "dog", "snake", "monkey",
    "hand", "rabbit", "duck", "cat", "cow", "fish", "train", "horse", "turtle", "bear", "motorbike",
    "giraffe", "leopard", "fox", "deer", "owl", "surfboard", "airplane", "truck", "zebra", "tiger",
    "elephant", "snowboard", "boat", "shark", "mouse", "frog", "eagle", "earless_seal", "tennis_racket",
]

NAMES_2021 = [
    "airplane", "bear", "bird", "boat", "car", "cat", "cow", "deer", "dog", "duck", "earless_seal",
    "elephant", "fish", "flying_disc", "fox", "frog", "giant_panda", "giraffe", "horse", "leopard", "lizard",
    "monkey", "motorbike", "mouse", "parrot", "person", "rabbit", "shark", "skateboard", "snake", "snowboard",
    "squirrel", "surfboard", "tennis_racket", "tiger", "train", "truck", "turtle", "whale", "zebra",
]

NAMES_OVIS = [    # the json writes "Vehical"
    "Person", "Bird", "Cat", "Dog", "Horse", "Sheep", "Cow", "Elephant", "Bear", "Zebra", "Giraffe", "Poultry",
    "Giant_panda", "Lizard", "Parrot", "Monkey", "Rabbit", "Tiger", "Fish", "Turtle", "Bicycle", "Motorcycle",
    "Airplane", "Boat", "Vehicle",
]


def thing_table(name: str, names_by_id: dict[int, str]) -> ClassTable:
    """A table of things from id -> name, with a colour computed from each id."""
    return ClassTable(name, tuple(ClassInfo(id, names_by_id[id], True, distinct_color(id))
                                  for id in sorted(names_by_id)))


def distinct_color(id: int) -> tuple[int, int, int]:
    """Deals the bits of the id to the high bits of red, green and blue in turn, so near ids get distant colours."""
    red = green = blue = 0
    for level in range(8):
        bits = id >> 3 * level
        red |= (bits & 1) << 7 - level
        green |= (bits >> 1 & 1) << 7 - level
        blue |= (bits >> 2 & 1) << 7 - level
    return red, green, blue


_2019 = dict(enumerate(NAMES_2019, start=1))
_2021 = dict(enumerate(NAMES_2021, start=1))

TABLES = {    # 2022 has the classes and training videos of 2021, with more validation videos
    "youtube_vis_2019": thing_table("youtube_vis_2019", _2019),
    "youtube_vis_2021": thing_table("youtube_vis_2021", _2021),
    "youtube_vis_2022": thing_table("youtube_vis_2022", _2021),
    "ovis": thing_table("ovis", dict(enumerate(NAMES_OVIS, start=1))),
}
