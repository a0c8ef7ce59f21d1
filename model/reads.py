"""What a cross-clip head, or learned links, declare to read of the queries of a segmenter or of a query cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from model.contracts import QueryShapes

USUAL = {"num_classes": "num_classes", "dim": "dim", "embedding": "pixel_dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """Declared in the class of a config, and compared with what is there before anything is trained."""

    # Setting of the config -> the field of `QueryShapes` that it has to equal.
    sizes: Mapping[str, str] = field(default_factory=lambda: USUAL)
    columns: tuple[str, ...] = ("queries",)     # fields of `VideoQueries`
    aligned: bool = True                        # query n has to be one object in all clips; False: any order will do
    decoder: str = ""                           # kind of query decoder whose last heads are copied; "": none

    def suits(self, shapes: QueryShapes) -> bool:
        """Whether the queries are of the kind that is read, whatever their sizes."""
        return (shapes.aligned or not self.aligned) and self.decoder in ("", shapes.decoder)

    def refuse_unfit(self, config: Any, shapes: QueryShapes, *, setting: str, others: Sequence[str] = ()) -> None:
        """Raise ValueError, with the cure, where the queries are not what a config reads.

        setting: of the recipe, that holds the config. others: kinds that suit these queries.
        """
        cure = f"choose another {setting}" + f", such as {' or '.join(others)}" * bool(others)
        if self.aligned and not shapes.aligned:
            raise ValueError(f"{setting} of kind {config.kind} reads queries in one order for the whole video, and "
                             f"those of this segmenter keep the order of their clip; {cure}")
        if not self.suits(shapes):
            raise ValueError(f"{setting} of kind {config.kind} starts from the last heads of a {self.decoder} decoder, "
                             f"and this segmenter has a {shapes.decoder or 'different'} one; {cure}")
        for name, size in self.sizes.items():
            if getattr(config, name) != (given := getattr(shapes, size)):
                raise ValueError(f"{setting}.{name}={getattr(config, name)} does not fit the queries, which have "
                                 f"{size}={given}; set {setting}.{name}={given}")
