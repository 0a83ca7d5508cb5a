"""What `ckd-tracker train` reads: one typed, frozen object out of one YAML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ckd_tracker_ros.network.config import BASE, CONFIGS, NetworkConfig
from ckd_tracker_ros.sequences import KINDS
from ckd_tracker_ros.share import share_folders
from ckd_tracker_ros.training.contexts import FACTOR, MIN_SIZE
from ckd_tracker_ros.training.distillation import DistillationConfig, Rates
from ckd_tracker_ros.training.samples import SampleConfig
from ckd_tracker_ros.training.typed import ConfigError, fill, merged, parse_changes, setting

FOLDER = Path("config") / "train"
"""Where the configurations lie in a share folder."""


@dataclass(frozen=True)
class SequenceSet:
    """Recordings with boxes.

    Attributes:
        root: folder of a data set, of recordings, or one recording.
        kind: layout of its sequences, one of `sequences.KINDS`; auto: each is what it looks like.
        names: file with one name of a wanted sequence a line, such as a benchmark's list; empty for all.
        weight: how often each of its sequences is drawn, against 1.
    """

    root: str = ""
    kind: str = setting("auto", choices=("auto", *KINDS))
    names: str = ""
    weight: float = setting(1.0, 0, above=True)


@dataclass(frozen=True)
class DataConfig:
    """What is trained on.

    Attributes:
        stills: folder of `<set>/annotations.json` and `<set>/<clip>/visible|infrared`; empty for none.
        scenes: generated scenes.
        labels: file of boxes for the clips among them: clip -> target -> `first_frame` and `boxes_xywh`; a name in
            `config/train` will do. Empty for none.
        boxes: most boxes that are taken of one image, by set of stills; 4 for the others.
        every: of still images, their videos, clips and scenes only every so-manieth is read, for a quick trial.
        weights: how often the tracks of a set of stills, of "labels" or of "scenes" are drawn, against 1.
        sequences: recordings with boxes.
        views: moments of each recording that are kept in memory; 0: frames are read while training, for data sets
            that are larger than the memory.
        max_gap: most frames between template and search crop (views 0).
        min_size: smallest sqrt(width * height) of a recording's target, in pixels.
        context: side of the kept region in units of sqrt(width * height) of the box.
        held_back: share of the tracks, or of the sequences, that only validation sees.
        processes: for reading everything that is kept in memory.
        workers: for reading frames while training; 0: none beside the training itself.
    """

    stills: str = ""
    labels: str = ""
    boxes: dict[str, int] = field(default_factory=dict)
    scenes: int = setting(0, 0)
    every: int = setting(1, 1)
    weights: dict[str, float] = field(default_factory=dict)
    sequences: tuple[SequenceSet, ...] = ()
    views: int = setting(0, 0)
    max_gap: int = setting(200, 1)
    min_size: float = setting(MIN_SIZE, 1)
    context: float = setting(FACTOR, 2)
    held_back: float = setting(0.05, 0, 0.5)
    processes: int = setting(2, 1)
    workers: int = setting(2, 0)

    def __post_init__(self) -> None:
        if not (self.stills or self.scenes or self.sequences):
            return  # a start that is filled in; `check` refuses what stays empty
        if self.sequences and not self.views and (self.stills or self.scenes):
            raise ConfigError(
                "views is 0 with stills or scenes beside sequences: what is read while training cannot be mixed with "
                "what is kept in memory; allowed: views of 1 or more, or one of the two alone"
            )


@dataclass(frozen=True)
class TrainConfig:
    """Schedule and precision.

    Attributes:
        steps: optimiser steps.
        batch: samples a step, over all processes.
        fresh, replay: with frozen early blocks, only `fresh` samples of a step are new, and the others come, as they
            left those blocks, from the last `replay` ones; 0: every sample is new.
        rates: learning rates by group; 0 freezes.
        schedule: of the learning rates after `warm_up` steps; a cosine ends at `floor` of them.
        clip: largest norm of the gradient; 0: any.
        average: decay of the averaged weights, which are what is written; 0: the weights themselves.
        drop_path: rate of stochastic depth in the last block.
        batch_norm: `train` or `eval`, where the head's stay as they were loaded.
        precision: of matrix products (autocast).
        log_every, validate_every: steps.
        validation: samples.
        save_every, save_seconds: steps, or seconds, after which the state is written.
        seed: of weights and samples.
        threads: of one process on the CPU; 0: torch's choice. The same number gives the same weights, to the bit.
    """

    steps: int = setting(3000, 1)
    batch: int = setting(24, 1)
    fresh: int = setting(0, 0)
    replay: int = setting(3000, 1)
    rates: Rates = field(default_factory=Rates)
    schedule: str = setting("cosine", choices=("cosine", "constant"))
    warm_up: int = setting(50, 0)
    floor: float = setting(0.02, 0, 1)
    weight_decay: float = setting(1e-4, 0)
    clip: float = setting(1.0, 0)
    average: float = setting(0.995, 0, 0.99999)
    drop_path: float = setting(0.0, 0, 0.9)
    batch_norm: str = setting("train", choices=("train", "eval"))
    precision: str = setting("float32", choices=("float32", "bfloat16"))
    log_every: int = setting(25, 1)
    validate_every: int = setting(100, 1)
    validation: int = setting(128, 0)
    save_every: int = setting(100, 1)
    save_seconds: float = setting(600.0, 0, above=True)
    seed: int = setting(0, 0)
    threads: int = setting(0, 0)

    def __post_init__(self) -> None:
        if self.fresh > self.batch:
            raise ConfigError(f"fresh is {self.fresh}; allowed: at most batch ({self.batch})")
        for name, rate in dataclasses.asdict(self.rates).items():
            if not rate >= 0:
                raise ConfigError(f"rates.{name} is {rate}; allowed: at least 0")
        if not any(dataclasses.asdict(self.rates).values()):
            raise ConfigError("all rates are 0: nothing would learn; allowed: at least one above 0")


@dataclass(frozen=True)
class TrainingConfig:
    """A whole training.

    Attributes:
        name: of the run.
        network: of the student.
        init: weights to start from: a published file or a transformer (see `network.convert`), a file of an earlier
            training, or the name of an installed model; empty: random.
        init_teachers: the same for the teachers; empty: what the student starts from.
    """

    name: str = "student"
    network: NetworkConfig = BASE
    init: str = ""
    init_teachers: str = ""
    data: DataConfig = DataConfig()
    samples: SampleConfig = SampleConfig()
    distillation: DistillationConfig = DistillationConfig()
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        train = self.train
        if train.fresh and not (self.distillation.early_frozen and self.network.joint_from):
            raise ConfigError(
                f"train.fresh is {train.fresh} without frozen early blocks; allowed: 0, or "
                "distillation.early_frozen with network.joint_from above 0"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML and JSON, complete."""
        return _plain(dataclasses.asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def find_config(name_or_path: str) -> Path:
    """The file of a path, or of a name (`smoke`) in the `config/train` of the share folders.

    Raises:
        ConfigError: there is none; lists the installed ones.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    installed = {file.stem: file for folder in reversed(share_folders()) for file in (folder / FOLDER).glob("*.yaml")}
    if name_or_path in installed:
        return installed[name_or_path]
    raise ConfigError(f"no configuration {name_or_path!r}; expected: a file, or one of {', '.join(sorted(installed))}")


def load_config(name_or_path: str, changes: list[str] | None = None) -> TrainingConfig:
    """A configuration file with `key.sub=value` changes over it.

    The section `network` starts from the configuration that its key `start` names (`base`, `ckd_tiny`).

    Raises:
        ConfigError: no file, no YAML, an unknown key (lists the known ones) or a wrong value (says what is allowed).
    """
    file = find_config(name_or_path)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file} is no readable YAML: {error}") from error
    try:
        if not isinstance(values, Mapping):
            raise ConfigError(f"it holds {values!r}; expected: a mapping of names to values")
        values = merged({"name": file.stem}, merged(values, parse_changes(changes or [])))
        return from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def from_dict(values: Mapping[str, Any]) -> TrainingConfig:
    """The way back from `TrainingConfig.to_dict`, or from what a file says.

    Raises:
        ConfigError: see `load_config`.
    """
    network = values.get("network", {})
    start = BASE
    if isinstance(network, Mapping) and "start" in network:
        if network["start"] not in CONFIGS:
            raise ConfigError(f"network.start is {network['start']!r}; allowed: {', '.join(CONFIGS)}")
        start = CONFIGS[network["start"]]
        network = {key: value for key, value in network.items() if key != "start"}
    return fill(TrainingConfig(network=start), {**values, "network": network}, "")
