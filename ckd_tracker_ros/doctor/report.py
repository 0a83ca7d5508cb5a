"""All checks in one go, and their findings for people and for machines."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

from rich.table import Table

from ckd_tracker_ros.causes import LEVELS, Finding
from ckd_tracker_ros.doctor import checks, pictures
from ckd_tracker_ros.doctor.facts import Camera, SetUp
from ckd_tracker_ros.frame import MODALITIES

CHECKS = (
    checks.silence,
    checks.publishers,
    checks.machine,
    pictures.usable,
    pictures.alignment,
    checks.stamps,
    checks.delay,
    checks.rates,
    checks.losses,
    pictures.content,
    pictures.kinds,
)
"""In the order in which findings of the same level are told."""
HEALTHY = "nothing wrong"


def examine(setup: SetUp) -> list[Finding]:
    """Everything that is found, what blocks first."""
    found = [finding for check in CHECKS for finding in check(setup)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def is_healthy(findings: list[Finding]) -> bool:
    """Whether there are remarks at most."""
    return all(finding.level == "remark" for finding in findings)


def as_text(findings: list[Finding]) -> list[str]:
    """A line for each finding; what is wrong comes first, or that nothing is."""
    lines = [f"{finding.level}: {finding}" for finding in findings]
    return [HEALTHY, *lines] if is_healthy(findings) else lines


def as_json(setup: SetUp, findings: list[Finding]) -> str:
    """For machines: healthy, findings, and what was measured."""
    document = {"healthy": is_healthy(findings), "findings": [asdict(each) for each in findings]}
    return json.dumps({**document, "measured": measured(setup)}, indent=2)


def measured(setup: SetUp) -> dict[str, dict[str, object]]:
    """What was seen: by camera, of the pair, of the machine; numbers that are not known are None."""
    values = {camera.stream.modality: _of(camera) for camera in setup.cameras}
    delay = setup.delay
    together = {"pairs": setup.pairing.pairs, "delay_s": delay and _known(delay.seconds)}
    together |= {"delay_spread_s": delay and _known(delay.spread), "delay_is_sure": bool(delay and delay.sure)}
    machine = {} if setup.machine is None else dict(setup.machine.description)
    return {**values, "both": together, "machine": machine}


def _of(camera: Camera) -> dict[str, object]:
    seen = camera.seen
    lost, pauses = checks.losses_of(camera)
    return {
        "topic": camera.stream.topic,
        "images": len(seen),
        "rate_hz": _known(1 / camera.period_s),
        "lost": lost,
        "pauses": len(pauses),
        "stamp_age_s": _known(camera.age_s),
        "size": "x".join(map(str, seen.sizes.most_common(1)[0][0])) if seen.sizes else None,
        "encoding": seen.encodings.most_common(1)[0][0] if seen.encodings else None,
    }


def _known(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def table(setup: SetUp) -> Table:
    """What was measured, for people."""
    values = measured(setup)
    shown = Table("", *(camera.stream.modality for camera in setup.cameras), title="measured")
    for row in values["rgb"]:
        shown.add_row(row, *(_shown(values[name][row]) for name in MODALITIES))
    for row, value in {**values["both"], **values["machine"]}.items():
        shown.add_row(row, _shown(value), "")
    return shown


def _shown(value: object) -> str:
    return "" if value is None else str(value)
