"""One object that says all there is to say about a network's shape; it travels inside the weight file."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ckd_tracker_ros.calibration import Calibration
from ckd_tracker_ros.frame import MODALITIES

ELIMINATIONS = ("multimodal", "independent")
"""Ways of choosing the search tokens that stay; see `NetworkConfig.elimination`."""

_RANGES = {
    "patch": (1, 256),
    "template_size": (1, 2048),
    "search_size": (1, 2048),
    "template_factor": (0.1, 100),
    "search_factor": (0.1, 100),
    "width": (1, 16384),
    "depth": (1, 256),
    "heads": (1, 256),
    "mlp_ratio": (0.01, 100),
    "head_channels": (8, 16384),
    "mean": (-10, 10),
    "std": (1e-6, 10),
}
"""Far wider than any network here: a damaged file has to be refused before something is built of it."""


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a student network. The defaults are the published ViT-B with candidate elimination (`base`).

    Attributes:
        name: for people, in logs and diagnostics.
        modalities: one branch each, in this order.
        patch: side of a token, pixels of the crop.
        template_size, search_size: side of the crops in pixels, multiples of `patch`.
        template_factor, search_factor: side of the crops in units of sqrt(width * height) of the box.
        size_rate: share of the predicted change of a box's size that a step takes over, in the logarithm; 1 as
            published. The size decides how large the next search crop is: errors of a small network feed on themselves.
        size_trust: that share is times the score to this power, 0 as published: what is hardly seen has no size.
        motion: the search crop lies where the target's velocity lets it be expected, and its window is as wide as the
            target has been surprising, see `motion`; off as published: around the last place, a Hann window.
        outline: boxes are corrected by what the network says of the target's first one, see `outline`; off: published.
        width, depth, heads, mlp_ratio: the vision transformer of a branch.
        joint_from: first block in which template and search tokens attend to each other. Before it they pass through
            the same blocks apart, so that the template's tokens are computed once per target, and get a learned
            second position where they meet (0: published).
        target_embed: template tokens are told how much of them the target's box covers. The published network sees a
            square and has to guess what in it is the target and where it ends.
        shared: one set of transformer weights for all modalities (the published SHARE_STUDENT variant).
        elimination_blocks: blocks, counted from 0, after whose attention search tokens are removed; () for never.
        elimination_keep: share of the search tokens that each of those blocks keeps, rounded up.
        elimination: `multimodal`, as published: all branches keep the same tokens, those that any of them finds
            relevant; `independent`: each branch keeps its own.
        head_channels: channels after the first convolution of each tower of the head; each later one halves them.
        mean, std: of RGB values in 0..1, for every modality.
        calibration: weights that make an estimate's confidence a probability, see `calibration`; None: its raw peak.
    """

    name: str = "base"
    modalities: tuple[str, ...] = MODALITIES
    patch: int = 16
    template_size: int = 128
    search_size: int = 256
    template_factor: float = 2.0
    search_factor: float = 4.0
    size_rate: float = 1.0
    size_trust: float = 0.0
    motion: bool = False
    outline: bool = False
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    joint_from: int = 0
    target_embed: bool = False
    shared: bool = False
    elimination_blocks: tuple[int, ...] = (3, 6, 9)
    elimination_keep: float = 0.7
    elimination: str = "multimodal"
    head_channels: int = 256
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    calibration: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            values = getattr(self, name)
            for value in values if isinstance(values, tuple) else [values]:
                if not low <= value <= high:
                    raise ValueError(f"{name} is {values}; allowed: {low:g} to {high:g}")
        if not len(self.mean) == len(self.std) == 3:
            raise ValueError(
                f"mean {self.mean} and std {self.std}; allowed: three numbers each, of red, green and blue"
            )
        for size in (self.template_size, self.search_size):
            if size <= 0 or size % self.patch:
                raise ValueError(f"crop size {size} is not a positive multiple of the patch size {self.patch}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of the number of heads {self.heads}")
        if not 0 < self.elimination_keep <= 1:
            raise ValueError(f"elimination_keep is {self.elimination_keep}; allowed: above 0, at most 1")
        if self.elimination not in ELIMINATIONS:
            raise ValueError(f"elimination is {self.elimination!r}; allowed: {', '.join(ELIMINATIONS)}")
        if not 0 < self.size_rate <= 1:
            raise ValueError(f"size_rate is {self.size_rate}; allowed: above 0, at most 1")
        if not 0 <= self.size_trust <= 8:
            raise ValueError(f"size_trust is {self.size_trust}; allowed: 0 (always) to 8")
        if not 0 <= self.joint_from < self.depth:
            raise ValueError(f"joint_from is {self.joint_from}; allowed: 0 to {self.depth - 1}")
        wrong = [b for b in self.elimination_blocks if not self.joint_from <= b < self.depth]
        if wrong:
            raise ValueError(f"elimination_blocks {wrong}; allowed: joint blocks {self.joint_from} to {self.depth - 1}")
        unknown = [m for m in self.modalities if m not in MODALITIES]
        if unknown or not self.modalities:
            raise ValueError(f"modalities {self.modalities}; allowed: some of {MODALITIES}")
        if self.calibration is not None:
            Calibration(self.calibration)  # raises

    @property
    def template_grid(self) -> int:
        """Template tokens along one side."""
        return self.template_size // self.patch

    @property
    def search_grid(self) -> int:
        """Search tokens, and cells of the head's maps, along one side."""
        return self.search_size // self.patch

    @property
    def central_template_token(self) -> int:
        """Index of the template token that elimination asks: 27 of 8 x 8 (row 3, column 3), an odd grid's middle."""
        middle = (self.template_grid - 1) // 2
        return middle * self.template_grid + middle

    @property
    def kept_tokens(self) -> tuple[int, ...]:
        """Search tokens left after each elimination, as (180, 126, 89): constants, so every shape is static."""
        kept, count = [], self.search_grid**2
        for _ in self.elimination_blocks:
            count = math.ceil(self.elimination_keep * count)
            kept.append(count)
        return tuple(kept)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetworkConfig:
        """The way back from JSON.

        Raises:
            ValueError: an unknown key (the known ones are listed) or a value that makes no network.
        """
        known = {field.name: field.default for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown network configuration {unknown}; known: {sorted(known)}")
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        for key, value in values.items():
            if not _fits(value, known[key]):
                raise ValueError(f"{key} is {value!r}; it has to be like {known[key]!r}")
        return cls(**values)


def _fits(value: Any, default: Any) -> bool:
    """Whether a value from JSON is of the type of a field's default: whole numbers are numbers, truths are not."""
    if default is None:
        return value is None or (isinstance(value, tuple) and all(_fits(each, 0.0) for each in value))
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_fits(each, default[0]) for each in value)
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(default)


BASE = NetworkConfig()
"""The published network: ViT-B/16, two students, elimination at blocks 3, 6 and 9."""

TINY = NetworkConfig(
    name="ckd_tiny",
    patch=14,
    template_size=84,
    search_size=168,
    size_rate=0.5,
    size_trust=2.0,
    motion=True,
    outline=True,
    width=384,
    depth=5,
    heads=6,
    joint_from=4,
    target_embed=True,
    shared=True,
    elimination_blocks=(),
    head_channels=64,
)
"""The shipped student: the first blocks of a DINOv2 ViT-S/14, one set of weights for both cameras."""

CONFIGS = {config.name: config for config in (BASE, TINY)}
