"""Ray Data prints no traceback of what it mends or raises."""

from __future__ import annotations

import logging
from io import StringIO

import pytest
from ray.data import exceptions
from ray.data._internal.execution import streaming_executor_state
from ray.data._internal.execution.operators import actor_pool_map_operator
from ray.data._internal.logging import HiddenRecordFilter, configure_logging
from ray.exceptions import ActorDiedError

import pipeline.streams  # noqa: F401 - which puts its filters on the loggers


@pytest.fixture
def terminal():
    """What Ray Data prints."""
    configure_logging()
    printed = StringIO()
    handler = logging.StreamHandler(printed)
    handler.addFilter(HiddenRecordFilter())     # as Ray's own handler of the terminal has it
    logging.getLogger("ray.data").addHandler(handler)
    yield printed
    logging.getLogger("ray.data").removeHandler(handler)


@pytest.mark.parametrize("module", [streaming_executor_state, actor_pool_map_operator])
def test_a_dead_actor_is_one_line(module, terminal):
    module.logger.error("An exception was raised from a task.", exc_info=ActorDiedError())
    (line,) = terminal.getvalue().splitlines()
    assert line.startswith("An exception was raised from a task. The actor ")


def test_an_error_that_ends_a_chain_is_raised_and_not_printed(terminal):
    @exceptions.omit_traceback_stdout
    def chain():
        raise ActorDiedError()
    with pytest.raises(ActorDiedError):
        chain()
    assert terminal.getvalue() == ""
