"""One cluster of three hosts for all tests that leave it as it is."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.cluster.hosts import Hosts, why_not


@pytest.fixture(scope="session")
def hosts():
    """Three hosts with Debian's line in /etc/hosts and a second network interface that leads nowhere."""
    if reason := why_not():
        pytest.skip(reason)
    with closing(Hosts(settings={0: {"own_name_is": "127.0.1.1", "second_interface": True}})) as hosts:
        yield hosts
