"""What produced a folder of results: `run.json`, and the refusal to mix two models in one folder."""

from __future__ import annotations

import hashlib
import json
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

import ckd_tracker_ros

FILE = "run.json"
SAME = ("model", "model_sha256", "precision", "modality", "data")
"""Entries that all results of one folder share. The device may change: a restart on another machine goes on."""


class MixedResultsError(ValueError):
    """The folder holds results of something else; names both."""


def describe(model: Path, network: str, runner: dict[str, str], modality: str, data: Path) -> dict[str, Any]:
    """The content of `run.json`.

    Args:
        model: the weight file.
        network: name of its configuration.
        runner: `Tracker.description`.
        data: folder of the data set; its name alone is kept, so that a moved data set is the same.
    """
    return {
        "model": model.stem,
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "network": network,
        **{key: runner[key] for key in ("device", "precision", "runner")},
        "modality": modality,
        "data": data.resolve().name,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": ckd_tracker_ros.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "processor": platform.machine(),
    }


def result_files(out: Path, name: str) -> tuple[Path, Path, Path]:
    """Boxes, confidences and times of a sequence."""
    return out / f"{name}.txt", out / f"{name}_confidence.txt", out / f"{name}_time.txt"


def results_in(out: Path) -> list[Path]:
    """The files of all finished sequences."""
    names = [path.name.removesuffix("_time.txt") for path in out.glob("*_time.txt")]
    return [path for name in names for path in result_files(out, name)]


def claim(out: Path, run: dict[str, Any], overwrite: bool = False) -> None:
    """Makes the folder the results' of this run, or goes on with the same one that stopped.

    Args:
        overwrite: the results of an earlier run are removed first.

    Raises:
        MixedResultsError: without `overwrite`, for results of another run; always, for text files of an unknown origin.
        OSError: the folder cannot be written.
    """
    file = out / FILE
    out.mkdir(parents=True, exist_ok=True)
    if not file.is_file() and any(out.glob("*.txt")):
        raise MixedResultsError(f"{out} holds text files but no {FILE} that says what they are; choose another folder")
    if overwrite:
        for path in [file, *results_in(out)]:
            path.unlink(missing_ok=True)
    old = read(out)
    if old is not None:
        different = [key for key in SAME if old.get(key) != run[key]]
        if different:
            has, new = (", ".join(f"{key} {str(of.get(key))[:16]}" for key in different) for of in (old, run))
            raise MixedResultsError(
                f"{out} holds results of {has}; this run has {new}. Choose another folder or --overwrite them"
            )
        return
    part = file.with_name(f"{FILE}.part")
    part.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    part.replace(file)


def read(out: Path) -> dict[str, Any] | None:
    """The `run.json` of a folder; None without one.

    Raises:
        MixedResultsError: it is damaged.
    """
    file = out / FILE
    if not file.is_file():
        return None
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise MixedResultsError(f"{file} is damaged ({error}): choose another folder, or remove it") from error
