"""Verbs and recipes: the command line of the project."""

import os

from jobs.surroundings import (
    is_verb,
    keep_warnings_harmless,
    open_closed_streams,
    refuse_lost_folder,
    refuse_missing_temporary_folder,
    refuse_other_python,
    refuse_shadows,
    say_that_it_starts,
)

# Read when Ray is imported. Under `uv run`, Ray would otherwise build an environment for its workers, and wait for it.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

open_closed_streams()
refuse_lost_folder()
refuse_shadows()
if is_verb():
    refuse_other_python()
    keep_warnings_harmless()
    refuse_missing_temporary_folder()
    say_that_it_starts()
    from jobs.stopping import handle_signals  # before the imports that take seconds
    handle_signals()
