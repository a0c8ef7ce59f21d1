"""The load of the machine is measured now and then; what a machine does not tell is left out."""

from __future__ import annotations

import psutil

from jobs.training.machine_load import SETTING, MachineLoad, is_wanted


def test_shares_are_percentages_and_names_are_those_of_mlflow(tmp_path):
    numbers = MachineLoad(tmp_path, seconds=0).numbers()
    assert all(name.startswith("system/") for name in numbers)
    assert {name for name in numbers if "gpu" not in name} >= {
        "system/cpu_utilization_percentage", "system/system_memory_usage_megabytes", "system/disk_usage_percentage"}
    assert all(0 <= value <= 100 for name, value in numbers.items() if name.endswith("percentage"))
    assert all(value >= 0 for value in numbers.values())


def test_a_folder_that_is_gone_and_a_machine_without_networks_cost_only_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "net_io_counters", lambda: None)
    numbers = MachineLoad(tmp_path / "gone", seconds=0).numbers()
    assert "system/cpu_utilization_percentage" in numbers
    assert not [name for name in numbers if "disk" in name or "network" in name]


def test_nothing_is_measured_twice_within_the_interval(tmp_path):
    assert MachineLoad(tmp_path).numbers() == {}


def test_the_setting_of_mlflow_turns_it_off():
    assert is_wanted({})
    assert is_wanted({SETTING: "true"})
    assert not is_wanted({SETTING: " False "})
