"""Recorded numbers of the reference implementations: one case is `<family>/<case>.safetensors` and `.json`.

The tensors are `input.*`, `state.*` (under the reference's names) and `output.*`; the json holds the arguments, the
tolerance and the procedure. A case is dispatched by its family and its json, never by its name. Used like this:

    @pytest.mark.parametrize("path", cases("position_encoding"), ids=case_id)
    def test_positions_equal_the_reference(path):
        with load_case(path) as case:
            features = case.arguments["num_pos_feats"]
            ...
            assert_close_to(case, "out", result)

Leaving the `with` block without an error fails when an argument or input was never read or an output never compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

_REPOSITORY = Path(__file__).resolve().parents[2]
BESIDE = _REPOSITORY.parent / "shared" / "parity"     # all cases, where a checkout has them
SUBSET = Path(__file__).parent / "data"                # the few that travel with the repository
_chosen: Path | None = None
_asked_for: set[str] = set()
_collected: set[Path] = set()                          # cases without their ending, relative to their root


def use(folder: Path) -> None:
    """Take the cases from this folder only (`pytest --parity DIR`)."""
    global _chosen
    _chosen = folder


def roots() -> list[Path]:
    """Where the cases lie: `--parity` alone, else the folder beside the checkout and the subset in the repository."""
    return [_chosen] if _chosen else [folder for folder in (BESIDE, SUBSET) if folder.is_dir()]


def cases(family: str) -> list[Path]:
    """The .json of every case of a family, by name; empty (so its tests are skipped) where there are none."""
    return _collect(path for path in _found(family, "*.json") if path.with_suffix(".safetensors").exists())


def case_folders(family: str) -> list[Path]:
    """Families whose cases are folders of files in official formats: the folders with an expected.json."""
    return _collect(path.parent for path in _found(family, "*/expected.json"))


def layouts() -> list[Path]:
    """The .json of every complete reference model: names, types and shapes of its weights."""
    return _collect(_found("state_dict_layouts", "*.json"))


def _found(family: str, pattern: str) -> list[Path]:
    """Paths below the folders of a family, each name once: the subset repeats cases that lie beside the checkout."""
    _asked_for.add(family)
    by_name = {path.relative_to(root): path for root in reversed(roots()) for path in root.glob(f"{family}/{pattern}")}
    return [by_name[name] for name in sorted(by_name)]


def _collect(paths: Iterable[Path]) -> list[Path]:
    """Remember that a test runs these."""
    paths = list(paths)
    _collected.update(Path(*path.parts[-2:]).with_suffix("") for path in paths)
    return paths


def families_asked_for() -> set[str]:
    """The families the test files imported so far have asked for."""
    return set(_asked_for)


def passed_over() -> list[Path]:
    """Numbers and their descriptions, in families that were asked for, of no case that a test runs."""
    files = [(root, path) for root in roots() for family in _asked_for for path in (root / family).rglob("*")
             if path.suffix in (".json", ".safetensors")]
    cases_of = [(path, Path(*path.relative_to(root).parts[:2])) for root, path in files]
    return sorted(path for path, case in cases_of if case.with_suffix("") not in _collected)


def case_id(path: Path) -> str:
    """Name of a case in pytest's report."""
    return path.stem


class Ledger(Mapping[str, Any]):
    """A mapping that remembers which of its entries were read, and with `deep` those of the mappings inside it."""

    def __init__(self, entries: Mapping[str, Any], *, deep: bool = False) -> None:
        self._entries = {name: Ledger(entry, deep=True) if deep and isinstance(entry, dict) else entry
                         for name, entry in entries.items()}
        self._read: set[str] = set()
        self._aside: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        value = self._entries[key]
        self._read.add(key)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def set_aside(self, *names: str) -> None:
        """Excuse entries, where there are any of these names, that have no part in what a case records."""
        self._aside.update(names)

    @property
    def unread(self) -> list[str]:
        """Entries nobody asked for; those of a mapping inside as `name.inner`."""
        known = self._read | self._aside
        inside = [f"{name}.{inner}" for name, entry in self._entries.items()
                  if name in self._read - self._aside and isinstance(entry, Ledger) for inner in entry.unread]
        return sorted([*(name for name in self._entries if name not in known), *inside])


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One recorded run of a reference implementation."""

    path: Path
    family: str
    procedure: str
    arguments: Ledger                                  # constructor and call arguments of the reference
    inputs: Ledger                                     # name without "input." -> tensor
    state: dict[str, Tensor]                           # reference's name -> weight
    outputs: Ledger                                    # name without "output." -> tensor
    atol: float
    rtol: float
    info: dict[str, Any] = field(repr=False)           # the whole json

    def __enter__(self) -> Case:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.check_complete()

    def check_complete(self) -> None:
        """Fail when something the case holds was not used."""
        for what, ledger in (("argument", self.arguments), ("input", self.inputs), ("output", self.outputs)):
            assert not ledger.unread, f"{self.family}/{self.path.stem}: {what}s {ledger.unread} are not handled"


def load_case(path: Path) -> Case:
    """Read a case from the path of its json."""
    info = json.loads(path.read_text())
    tensors = load_file(path.with_suffix(".safetensors"))
    parts = {part: {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items()
                    if name.startswith(f"{part}.")} for part in ("input", "state", "output")}
    return Case(path=path, family=info["family"], procedure=info["procedure"],
                arguments=Ledger(info["arguments"], deep=True), inputs=Ledger(parts["input"]), state=parts["state"],
                outputs=Ledger(parts["output"]),
                atol=info["tolerance"]["atol"], rtol=info["tolerance"]["rtol"], info=info)


def unhandled(case: Case) -> AssertionError:
    """For the last branch of a dispatch: `raise unhandled(case)`."""
    return AssertionError(f"{case.family}/{case.path.stem}: procedure {case.procedure!r} is not handled")


def assert_close_to(case: Case, name: str, result: Tensor) -> None:
    """Compare with output `name`: same shape; |a - b| <= atol + rtol |b|; equal where the case holds integers.

    Gradients (`grad.*`): largest difference below 1e-4 of the largest absolute value of that tensor.
    """
    expected = case.outputs[name]
    label = f"{case.family}/{case.path.stem} output {name!r}"
    assert result.shape == expected.shape, f"{label}: shape {tuple(result.shape)}, expected {tuple(expected.shape)}"
    if not expected.is_floating_point():
        different = int((result.to(expected.dtype) != expected).sum())
        assert different == 0, f"{label}: {different} of {expected.numel()} entries differ"
        return
    if not expected.numel():
        return
    result = result.detach().double()
    expected = expected.double()
    gap = (result - expected).abs()
    assert torch.isfinite(result).all(), f"{label}: not finite"
    if name.startswith("grad."):
        assert gap.max() <= 1e-4 * expected.abs().max(), f"{label}: off by {gap.max():.2e}"
        return
    excess = gap - (case.atol + case.rtol * expected.abs())
    assert excess.max() <= 0, (f"{label}: {int((excess > 0).sum())} of {gap.numel()} entries are off, the largest by "
                               f"{gap.max():.2e}; allowed {case.atol:g} + {case.rtol:g} of the value")
