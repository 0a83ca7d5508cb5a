"""The diagnostics message: why nothing arrives, with everything else a robot engineer asks."""

from __future__ import annotations

from collections.abc import Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue


def message(
    stamp: Time, name: str, hardware_id: str, level: bytes, text: str, values: Mapping[str, object]
) -> DiagnosticArray:
    """One status in a DiagnosticArray; numbers are rounded for people."""
    pairs = [KeyValue(key=key, value=_shown(value)) for key, value in values.items()]
    status = DiagnosticStatus(level=level, name=name, message=text, hardware_id=hardware_id, values=pairs)
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp
    return array


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
