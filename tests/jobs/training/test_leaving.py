"""Where training may go on: on machines that are there and stay."""

from __future__ import annotations

from jobs.training.leaving import staying


def node(name: str, *, cpus: float, alive: bool = True) -> dict:
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus}}


def test_what_ray_has_reserved_is_taken_where_all_machines_stay():
    reserved = {"a": {"CPU": 1.0}}
    assert staying(reserved, [node("a", cpus=4.0), node("b", cpus=4.0)], {"b"}) == reserved


def test_a_machine_that_is_gone_or_will_be_has_no_room_and_the_others_have_all_of_theirs():
    reserved = {"b": {"CPU": 2.0}}
    nodes = [node("a", cpus=4.0), node("b", cpus=2.0), node("c", cpus=8.0, alive=False)]
    assert staying(reserved, nodes, {"b"}) == {"a": {"CPU": 4.0}}
    assert staying({"c": {"CPU": 2.0}}, nodes, set()) == {"a": {"CPU": 4.0}, "b": {"CPU": 2.0}}
