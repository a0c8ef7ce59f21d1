"""Training processes take the interface that has Ray's address, unless the user has chosen one."""

from __future__ import annotations

import os

import pytest

from jobs.cluster import INTERFACES, worker_environment
from jobs.training import interface
from jobs.training.interface import choose_interface, interface_of


@pytest.fixture
def address(monkeypatch):
    """Ray's address on this machine, and no choice of the user."""
    for variable in INTERFACES:
        monkeypatch.setenv(variable, "")        # so that it is restored
        monkeypatch.delenv(variable)
    given = ["127.0.0.1"]
    monkeypatch.setattr(interface.ray.util, "get_node_ip_address", lambda: given[0])
    return given


def test_the_interface_of_rays_address_is_taken(address):
    assert interface_of("127.0.0.1") == "lo"
    choose_interface()
    assert {os.environ[variable] for variable in INTERFACES} == {"lo"}


def test_an_address_that_no_interface_has_leaves_the_choice_to_gloo_and_nccl(address):
    address[0] = "203.0.113.9"
    choose_interface()
    assert not set(INTERFACES) & os.environ.keys()


def test_what_the_user_has_chosen_stays_and_reaches_the_workers(address, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    choose_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"
    assert os.environ["NCCL_SOCKET_IFNAME"] == "lo"
    assert worker_environment()["GLOO_SOCKET_IFNAME"] == "eth7"
