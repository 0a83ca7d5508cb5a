"""The parameters of the node and of the commands that do what it does: one table with defaults, meaning and limits."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ckd_tracker_ros.modality import ON_MISSING, ModalitySettings
from ckd_tracker_ros.pairing import PairingSettings
from ckd_tracker_ros.registration import Registration, RegistrationError
from ckd_tracker_ros.settings import LostSettings, TrackerSettings
from ckd_tracker_ros.thermal import ThermalSettings

ROS = ("use_sim_time", "start_type_description_service", "qos_overrides.")
"""How parameters begin that every node has."""
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

NO_SIZES = (0, 0, 0, 0)


class ParameterError(ValueError):
    """A parameter has a value that the node cannot work with; the message names both and what is allowed."""


@dataclass(frozen=True)
class Rule:
    """What is known about one parameter besides its default.

    Attributes:
        name: the parameter's ROS name.
        meaning: one sentence for `ros2 param describe` and config/tracker.yaml.
        unit: of the value, "" where it has none.
        low: smallest allowed value, of every number in the parameter.
        high: largest allowed value.
        choices: allowed texts, empty = any.
        length: how many numbers an array has.
        increasing: whether the numbers of an array have to rise.
        live: takes effect at the next pair; others are read-only.
    """

    name: str
    meaning: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    length: int = 0
    increasing: bool = False
    live: bool = False

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        numbers = f"{self.length} numbers" if self.length else "a number"
        bounds = [f"from {self.low:g}"] * math.isfinite(self.low) + [f"to {self.high:g}"] * math.isfinite(self.high)
        return " ".join([numbers, *bounds, self.unit, "in rising order" * self.increasing]).replace("  ", " ").rstrip()

    def problem(self, value: Any) -> str:
        """Why a value of the right type cannot be used, naming it and what is allowed; "" when it can."""
        if isinstance(value, bool) or (isinstance(value, str) and (not self.choices or value in self.choices)):
            return ""
        fits = not isinstance(value, str)
        if fits:
            numbers = [value] if isinstance(value, (int, float)) else list(value)
            fits = all(math.isfinite(number) and self.low <= number <= self.high for number in numbers)
            fits = fits and (not self.length or len(numbers) == self.length)
            fits = fits and (not self.increasing or all(a < b for a, b in zip(numbers, numbers[1:], strict=False)))
        if not fits:
            shown = value if isinstance(value, (str, int, float)) else list(value)
            return f"{self.name} is {shown!r}; it has to be {self.allowed}"
        return self._matrix_problem(value) if self.name == "registration.thermal_to_rgb" else ""

    def _matrix_problem(self, value: Sequence[float]) -> str:
        try:
            Registration(tuple(value))
        except RegistrationError as error:
            return f"{self.name}: {error}"
        return ""


def _row(default: Any, name: str, meaning: str, **rule: Any) -> Any:
    return field(default=default, metadata={"rule": Rule(name, meaning, **rule)})


@dataclass(frozen=True)
class Parameters:
    """All parameters of the node: each field is one row of the table, with its rule."""

    model: str = _row("ckd_tiny", "model", "model file, or the name of one that is installed")
    device: str = _row("auto", "device", "auto, cpu, cuda, cuda:N; tensorrt for an .onnx model; it has to be there")
    precision: str = _row(
        "auto", "precision", "number format: auto (by device), float32, bfloat16, float16 (GPU), int8 (CPU)"
    )
    threads: int = _row(0, "threads", "CPU threads of the network, 0 = torch's own choice", low=0, high=256)
    autostart: bool = _row(True, "autostart", "configure and activate at start")
    max_targets: int = _row(8, "max_targets", "targets at once", low=1, high=256)
    min_box_size: float = _row(
        TrackerSettings.min_box_size,
        "min_box_size",
        "smallest width and height of a target",
        unit="px",
        low=1.0,
        high=1e4,
    )
    rgb_transport: str = _row("raw", "rgb.transport", "how RGB images arrive", choices=("raw", "compressed"))
    thermal_transport: str = _row(
        "raw", "thermal.transport", "how thermal images arrive", choices=("raw", "compressed")
    )
    thermal_normalization: str = _row(
        "percentile",
        "thermal.normalization",
        "how 16-bit and float thermal images become grey levels",
        choices=("percentile", "range"),
        live=True,
    )
    thermal_percentiles: tuple[float, ...] = _row(
        (1.0, 99.0),
        "thermal.percentiles",
        "of the image, become black and white",
        unit="%",
        low=0.0,
        high=100.0,
        length=2,
        increasing=True,
        live=True,
    )
    thermal_range: tuple[float, ...] = _row(
        (0.0, 65535.0),
        "thermal.range",
        "raw values that become black and white with normalization range",
        low=-1e38,
        high=1e38,
        length=2,
        increasing=True,
        live=True,
    )
    thermal_smoothing: float = _row(
        0.9,
        "thermal.smoothing",
        "share of the earlier black and white that is kept at each image",
        low=0.0,
        high=0.999,
        live=True,
    )
    sync_policy: str = _row(
        "nearest",
        "sync.policy",
        "how images become pairs; approximate and exact need message_filters",
        choices=("nearest", "approximate", "exact"),
    )
    sync_slop: float = _row(
        PairingSettings.slop, "sync.slop", "largest difference of the stamps of a pair", unit="s", low=0.0, high=10.0
    )
    sync_queue_size: int = _row(
        PairingSettings.queue_size, "sync.queue_size", "images of each camera that wait for a partner", low=1, high=1000
    )
    sync_thermal_delay: float = _row(
        PairingSettings.thermal_delay,
        "sync.thermal_delay",
        "subtracted from thermal stamps before pairing",
        unit="s",
        low=-10.0,
        high=10.0,
        live=True,
    )
    sync_reuse: bool = _row(
        PairingSettings.reuse,
        "sync.reuse",
        "one thermal image may serve several RGB images (9 Hz beside 30 Hz)",
        live=True,
    )
    sync_max_age: float = _row(
        0.5,
        "sync.max_age",
        "pairs that arrived longer ago than this are dropped",
        unit="s",
        low=0.01,
        high=3600.0,
        live=True,
    )
    replay_seconds: float = _row(
        1.0, "replay.seconds", "recent pairs kept for requests with a past stamp", unit="s", low=0.0, high=60.0
    )
    replay_max_mb: int = _row(256, "replay.max_mb", "memory for these pairs", unit="MB", low=1, high=65536)
    modality_timeout: float = _row(
        ModalitySettings.timeout,
        "modality.timeout",
        "of silence or of one and the same image, after which a camera counts as missing",
        unit="s",
        low=0.01,
        high=60.0,
        live=True,
    )
    modality_on_missing: str = _row(
        ModalitySettings.on_missing,
        "modality.on_missing",
        "degrade goes on with the other camera, wait waits until both can be believed",
        choices=ON_MISSING,
        live=True,
    )
    registration_thermal_to_rgb: tuple[float, ...] = _row(
        IDENTITY,
        "registration.thermal_to_rgb",
        "3x3 homography, row major, thermal pixels to RGB pixels, found by `ckd-tracker calibrate`; identity scales by "
        "image size",
        length=9,
    )
    registration_sizes: tuple[int, ...] = _row(
        NO_SIZES,
        "registration.sizes",
        "RGB width and height, thermal width and height that the homography was found with; images of other sizes are "
        "scaled; zeros: it is for the images as they come",
        unit="px",
        low=0,
        high=65536,
        length=4,
    )
    lost_confidence: float = _row(
        LostSettings.confidence,
        "lost.confidence",
        "a target under this confidence is uncertain",
        low=0.0,
        high=1.0,
        live=True,
    )
    lost_recover: float = _row(
        LostSettings.recover,
        "lost.recover",
        "an uncertain or lost target is tracked again from this confidence on",
        low=0.0,
        high=1.0,
        live=True,
    )
    lost_after: int = _row(
        LostSettings.after, "lost.after", "frames a target is uncertain before it is lost", low=0, high=1000, live=True
    )
    lost_give_up: float = _row(
        LostSettings.give_up,
        "lost.give_up",
        "a lost target is searched for so long, then removed; 0: for ever",
        unit="s",
        low=0.0,
        high=86400.0,
        live=True,
    )
    lost_crops: int = _row(
        LostSettings.crops,
        "lost.crops",
        "search crops a step for all targets that are uncertain or lost, at least one each",
        low=1,
        high=256,
        live=True,
    )
    template_update: float = _row(
        LostSettings.renew,
        "template.update",
        "a target that is well seen gets its present appearance as a second template so often; 0: never",
        unit="s",
        low=0.0,
        high=3600.0,
        live=True,
    )
    qos_reliability: str = _row(
        "auto",
        "qos.reliability",
        "of the image subscriptions; auto asks what the publishers offer",
        choices=("auto", "reliable", "best_effort"),
    )
    qos_depth: int = _row(5, "qos.depth", "queue of the image subscriptions", low=1, high=1000)
    diagnostics_period: float = _row(
        1.0, "diagnostics.period", "between two diagnostics messages", unit="s", low=0.1, high=60.0, live=True
    )
    debug_rate: float = _row(
        10.0, "debug.rate", "largest rate of ~/debug_image", unit="Hz", low=0.1, high=240.0, live=True
    )

    def __post_init__(self) -> None:
        if self.lost_recover < self.lost_confidence:
            raise ParameterError(
                f"lost.recover is {self.lost_recover:g}; it has to be at least lost.confidence, "
                f"{self.lost_confidence:g}"
            )
        if any(self.registration_sizes) and not all(self.registration_sizes):
            raise ParameterError(f"registration.sizes is {list(self.registration_sizes)}; all or none have to be 0")
        if self.sync_reuse and self.sync_policy != "nearest":
            raise ParameterError(f"sync.reuse needs sync.policy nearest, which is {self.sync_policy}")

    @property
    def tracker_settings(self) -> TrackerSettings:
        """What the tracker takes from these parameters."""
        matrix, sizes = tuple(self.registration_thermal_to_rgb), tuple(self.registration_sizes)
        return TrackerSettings(
            min_box_size=self.min_box_size,
            thermal=ThermalSettings(
                self.thermal_normalization, self.thermal_percentiles, self.thermal_range, self.thermal_smoothing
            ),
            registration=Registration(None if matrix == IDENTITY else matrix, None if sizes == NO_SIZES else sizes),
        )

    @property
    def pairing_settings(self) -> PairingSettings:
        """What makes pairs with sync.policy nearest."""
        silence = self.modality_settings.silence
        return PairingSettings(self.sync_slop, self.sync_queue_size, self.sync_thermal_delay, self.sync_reuse, silence)

    @property
    def modality_settings(self) -> ModalitySettings:
        """When a camera counts as missing."""
        return ModalitySettings(self.modality_timeout, self.modality_on_missing)

    @property
    def lost_settings(self) -> LostSettings:
        """When a target is lost."""
        return LostSettings(
            self.lost_confidence,
            self.lost_recover,
            self.lost_after,
            self.lost_give_up,
            self.lost_crops,
            self.template_update,
        )


RULES: dict[str, Rule] = {row.name: row.metadata["rule"] for row in fields(Parameters)}
"""By field of `Parameters`."""
FIELDS = {rule.name: name for name, rule in RULES.items()}
"""By ROS name."""
NODE = "ckd_tracker"
"""The node's name where nobody changes it."""


def frozen(value: Any) -> Any:
    """A value as the fields of `Parameters` have it: arrays are tuples."""
    return value if isinstance(value, (str, int, float)) else tuple(value)


def read_yaml(path: str | Path) -> Parameters:
    """The parameters that a ROS parameter file gives the node, without ROS; those it does not name have their defaults.

    Sections of other nodes are left alone. Types are as strict as the node's: 1 is no floating-point number, 1.0 is.

    Raises:
        ParameterError: no section of the node, a parameter that it does not have, a value that it would refuse.
        OSError: the file cannot be read.
    """
    try:
        sections = yaml.safe_load(Path(path).read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} is no YAML file: {error}") from error
    ours = {name: part for name, part in sections.items() if _is_ours(name)} if isinstance(sections, dict) else {}
    if not ours:
        names = ", ".join(map(str, sections)) if isinstance(sections, dict) else "no sections"
        raise ParameterError(f"{path} has {names}; a parameter file of the node has /**: or {NODE}:")
    given: dict[str, Any] = {}
    for name, section in ours.items():
        if not isinstance(section, dict) or not isinstance(section.get("ros__parameters"), dict):
            raise ParameterError(f"{path}: {name} has no ros__parameters")
        given |= dict(_flat(section["ros__parameters"]))
    checked = {name: _checked(name, value, path) for name, value in given.items() if not name.startswith(ROS)}
    return Parameters(**{FIELDS[name]: value for name, value in checked.items()})


def _is_ours(section: Any) -> bool:
    return str(section).rpartition("/")[2] in ("**", "*", NODE)


def _flat(group: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Nested groups as names with dots."""
    for name, value in group.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _checked(name: str, value: Any, path: str | Path) -> Any:
    if name not in FIELDS:
        near = difflib.get_close_matches(name, FIELDS, 1)
        raise ParameterError(f"{path}: no parameter {name}{f'; is {near[0]} meant?' if near else ''}")
    rule, default = RULES[FIELDS[name]], getattr(Parameters(), FIELDS[name])
    numbers = isinstance(default, tuple) and isinstance(value, list)
    if not (all(type(one) is type(default[0]) for one in value) if numbers else type(value) is type(default)):
        kind = {bool: "true or false", int: "a whole number", float: "a number with a point", str: "a text"}
        wanted = kind.get(type(default)) or f"{rule.length} times {kind[type(default[0])]}"
        raise ParameterError(f"{path}: {name} is {value!r}; it has to be {wanted}")
    if problem := rule.problem(value):
        raise ParameterError(f"{path}: {problem}")
    return frozen(value)


def as_yaml() -> str:
    """The text of config/tracker.yaml: every parameter with its default, meaning, unit and allowed values."""
    lines = [
        "# Parameters of the tracker node. Written by `python -m ckd_tracker_ros.parameters`.",
        "# live: takes effect at the next pair. The others are read at start and stay while the node runs.",
        "/**:",
        "  ros__parameters:",
    ]
    group = ""
    for row in fields(Parameters):
        rule = RULES[row.name]
        indent, name = "    ", rule.name
        if "." in rule.name:
            prefix, name = rule.name.split(".")
            if prefix != group:
                lines.append(f"    {prefix}:")
            group, indent = prefix, "      "
        limits = not isinstance(row.default, bool) and (rule.choices or math.isfinite(rule.high) or rule.length)
        notes = [rule.meaning, rule.allowed if limits else "", "live" * rule.live]
        lines += [f"{indent}# {'; '.join(filter(None, notes))}", f"{indent}{name}: {_yaml(row.default)}"]
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(repr, value))}]" if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    import sys

    sys.stdout.write(as_yaml())
