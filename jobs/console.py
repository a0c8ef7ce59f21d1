"""Output of the verbs on the terminal."""

from __future__ import annotations


def say(*lines: str) -> None:
    """Print lines without buffering, so that a job log shows them in order while it is followed."""
    print("\n".join(lines), flush=True)
