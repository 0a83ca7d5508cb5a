"""Declares, describes and checks the node's parameters in ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from ckd_tracker_ros.parameters import FIELDS, RULES, ParameterError, Parameters, Rule, frozen


def descriptor(rule: Rule, default: Any, *, read_only: bool) -> ParameterDescriptor:
    """What `ros2 param describe` shows."""
    text = f"{rule.meaning} [{rule.unit}]" if rule.unit else rule.meaning
    described = ParameterDescriptor(description=text, additional_constraints=rule.allowed * bool(rule.choices))
    described.read_only = read_only
    if type(default) is int:
        described.integer_range = [IntegerRange(from_value=int(rule.low), to_value=int(rule.high))]
    elif type(default) is float:
        described.floating_point_range = [FloatingPointRange(from_value=rule.low, to_value=rule.high)]
    return described


class ParameterTable:
    """The declared parameters of one node.

    A value that the user gave and that cannot be used does not end the process: the parameter takes its default, can
    be set once more, and `read` refuses with the reason until it has been.
    """

    def __init__(self, node: Node, changed: Callable[[Parameters], None]) -> None:
        """Declares every parameter; `changed` is called with all values when one has been set later."""
        self._node = node
        self._changed = changed
        self._problems: dict[str, str] = {}
        self._complete = False
        node.add_on_set_parameters_callback(self._check)
        for row in fields(Parameters):
            self._declare(RULES[row.name], row.default)
        self._complete = True

    def _declare(self, rule: Rule, default: Any) -> None:
        value = list(default) if isinstance(default, tuple) else default
        try:
            self._node.declare_parameter(rule.name, value, descriptor(rule, default, read_only=not rule.live))
        except (InvalidParameterValueException, InvalidParameterTypeException) as error:
            described = descriptor(rule, default, read_only=False)
            self._node.declare_parameter(rule.name, value, described, ignore_override=True)
            self._problems[rule.name] = f"parameter {rule.name}: {error}"

    def _check(self, given: Iterable[Parameter]) -> SetParametersResult:
        """Called by rclpy before values are set; what it accepts is set."""
        given = {FIELDS[parameter.name]: parameter.value for parameter in given if parameter.name in FIELDS}
        problems = [problem for name, value in given.items() if (problem := RULES[name].problem(value))]
        if not problems and given and self._complete:
            try:
                values = Parameters(**{**self._values(), **{name: frozen(value) for name, value in given.items()}})
                _ = values.tracker_settings, values.lost_settings  # what they refuse is refused here
            except ValueError as error:
                problems = [str(error)]
            else:
                for name in given:
                    self._problems.pop(RULES[name].name, None)
                self._changed(values)
        return SetParametersResult(successful=not problems, reason="; ".join(problems))

    def read(self) -> Parameters:
        """The values as they are now.

        Raises:
            ParameterError: a value given at start could not be used and has not been replaced yet.
        """
        if self._problems:
            raise ParameterError("; ".join(self._problems.values()))
        return Parameters(**self._values())

    def _values(self) -> dict[str, Any]:
        return {name: frozen(self._node.get_parameter(rule.name).value) for name, rule in RULES.items()}
