"""The parameter table: one home for defaults, ranges and texts."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import rclpy
import ros_helpers  # noqa: F401 - first, it keeps this process's ROS graph apart
import yaml
from rclpy.parameter import Parameter

from ckd_tracker_ros.parameters import RULES, ParameterError, Parameters, as_yaml, read_yaml
from ckd_tracker_ros.ros.parameters import ParameterTable
from ckd_tracker_ros.target import LostSettings
from ckd_tracker_ros.tracker import TrackerSettings

CONFIG = Path(__file__).parents[1] / "config" / "tracker.yaml"


@pytest.fixture
def make_node():
    """A plain node with the parameter table, as if started with `-p` overrides."""
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(**overrides):
        given = [Parameter(name.replace("__", "."), value=value) for name, value in overrides.items()]
        node = rclpy.create_node("parameters", context=context, parameter_overrides=given)
        nodes.append(node)
        changes = []
        return node, ParameterTable(node, changes.append), changes

    yield make
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


def set_to(node, **values):
    return node.set_parameters([Parameter(name.replace("__", "."), value=value) for name, value in values.items()])[0]


def test_the_shipped_file_is_what_the_table_says():
    assert CONFIG.read_text() == as_yaml()


def test_the_shipped_file_is_valid_and_complete(make_node):
    given = yaml.safe_load(CONFIG.read_text())["/**"]["ros__parameters"]
    flat = {}
    for name, value in given.items():
        flat.update({f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value})
    assert set(flat) == {rule.name for rule in RULES.values()}
    _, table, _ = make_node(**{name.replace(".", "__"): value for name, value in flat.items()})
    assert table.read() == Parameters()


def test_a_file_is_read_without_ros_as_the_node_reads_it(tmp_path):
    assert read_yaml(CONFIG) == Parameters()
    file = tmp_path / "robot.yaml"
    file.write_text(
        "other_node:\n  ros__parameters: {model: not_ours}\n"
        "/**:\n  ros__parameters: {use_sim_time: true, lost: {after: 7}, thermal.range: [0.0, 9.0]}\n"
        "/robot/ckd_tracker:\n  ros__parameters: {sync.slop: 0.05}\n"
    )
    assert read_yaml(file) == Parameters(lost_after=7, thermal_range=(0.0, 9.0), sync_slop=0.05)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("camera:\n  ros__parameters: {}\n", "has camera; a parameter file of the node has"),
        ("- 1\n", "has no sections"),
        ("/**: {sync: 1}\n", "has no ros__parameters"),
        ("a: b: c\n", "is no YAML file"),
        ("/**: {ros__parameters: {sync.slob: 0.1}}\n", "no parameter sync.slob; is sync.slop meant?"),
        ("/**: {ros__parameters: {sync.slop: 1}}\n", "sync.slop is 1; it has to be a number with a point"),
        ("/**: {ros__parameters: {thermal.range: [1, 2]}}\n", "it has to be 2 times a number with a point"),
        ("/**: {ros__parameters: {registration.sizes: [640, 480, 0, 0]}}\n", "all or none have to be 0"),
        ("/**: {ros__parameters: {registration.sizes: [1.0, 1, 1, 1]}}\n", "it has to be 4 times a whole number"),
        ("/**: {ros__parameters: {sync.reuse: 1}}\n", "sync.reuse is 1; it has to be true or false"),
        ("/**: {ros__parameters: {lost.confidence: 2.0}}\n", "a number from 0 to 1"),
        ("/**: {ros__parameters: {lost.confidence: 0.9}}\n", "lost.recover is 0.85; it has to be at least"),
    ],
)
def test_a_file_that_the_node_would_refuse_is_refused(tmp_path, text, said):
    (tmp_path / "robot.yaml").write_text(text)
    with pytest.raises(ParameterError, match=re.escape(said)):
        read_yaml(tmp_path / "robot.yaml")


def test_defaults_are_those_of_the_tracker():
    assert Parameters().tracker_settings == TrackerSettings()
    assert Parameters().lost_settings == LostSettings()


def test_every_default_obeys_its_own_rule():
    for row in fields(Parameters):
        assert RULES[row.name].problem(row.default) == ""


def test_descriptors_carry_text_unit_range_and_access(make_node):
    node, _, _ = make_node()
    slop, delay = node.describe_parameter("sync.slop"), node.describe_parameter("sync.thermal_delay")
    assert slop.description.endswith("[s]") and slop.floating_point_range[0].to_value == 10.0
    assert slop.read_only and not delay.read_only
    assert "compressed" in node.describe_parameter("rgb.transport").additional_constraints


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("sync_thermal_delay", float("nan"), "from -10 to 10 s"),
        ("thermal_percentiles", (99.0, 1.0), "rising"),
        ("thermal_percentiles", (1.0, 2.0, 3.0), "2 numbers"),
        ("thermal_percentiles", (1.0, 101.0), "101.0"),
        ("rgb_transport", "theora", "'theora'; it has to be one of raw, compressed"),
        ("registration_thermal_to_rgb", (0.0,) * 9, "inverted"),
        ("registration_thermal_to_rgb", (1.0,) * 8, "9 numbers"),
        ("max_targets", 0, "from 1"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(name, value, said):
    problem = RULES[name].problem(value)
    assert RULES[name].name in problem and said in problem


def test_a_live_parameter_is_taken_over_and_a_bad_one_refused(make_node):
    node, table, changes = make_node()
    assert set_to(node, thermal__percentiles=[2.0, 98.0]).successful
    assert changes[-1].thermal_percentiles == table.read().thermal_percentiles == (2.0, 98.0)
    refused = set_to(node, debug__rate=0.0)
    assert not refused.successful and "debug.rate" in refused.reason and "240" in refused.reason
    assert len(changes) == 1


def test_values_that_contradict_each_other_are_refused(make_node):
    node, table, _ = make_node()
    refused = set_to(node, lost__confidence=0.9)
    assert not refused.successful and f"lost.recover is {LostSettings().recover:g}" in refused.reason
    both = [Parameter("lost.confidence", value=0.8), Parameter("lost.recover", value=0.9)]
    assert node.set_parameters_atomically(both).successful
    assert table.read().lost_settings == LostSettings(0.8, 0.9)


def test_read_only_parameters_stay(make_node):
    node, _, _ = make_node()
    assert "read-only" in set_to(node, max_targets=3).reason


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sync__slop": -1.0}, "-1.0"),
        ({"sync__slop": 1}, "DOUBLE"),
        ({"rgb__transport": "zip"}, "raw, compressed"),
        ({"registration__thermal_to_rgb": [1.0, 2.0]}, "9 numbers"),
        ({"lost__confidence": 0.95}, "lost.recover"),
        ({"sync__reuse": True, "sync__policy": "exact"}, "nearest"),
    ],
)
def test_a_bad_start_value_is_an_error_of_configure_that_can_be_mended(make_node, given, said):
    node, table, _ = make_node(**given)
    with pytest.raises(ParameterError, match=said):
        table.read()
    mended = {"sync__slop": 0.02, "rgb__transport": "raw", "lost__confidence": 0.1, "sync__reuse": False}
    mended["registration__thermal_to_rgb"] = [1.0, 0.0, 5.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    assert all(set_to(node, **{name: mended[name]}).successful for name in given if name in mended)
    table.read()
