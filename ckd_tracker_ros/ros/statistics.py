"""What happened since activation, counted where it happens and read by the diagnostics."""

from __future__ import annotations

import re
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median

from ckd_tracker_ros.frame import MODALITIES
from ckd_tracker_ros.modality import Verdict, problem

Size = tuple[int, int]

MOST_WARNINGS = 200
"""Different ones that are written to the log of a node; whoever sends images could fill a disk with more."""


@dataclass(frozen=True)
class Timing:
    """Mean, median and largest of some durations, seconds; NaN where there were none."""

    mean: float
    median: float
    largest: float


class Statistics:
    """Counters of one node, and the warnings that are given once per cause. Safe to use from several threads."""

    def __init__(self, warn: Callable[[str], None], fail: Callable[[str], None]) -> None:
        """`warn` and `fail` write to the log."""
        self._warn = warn
        self._fail = fail
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self._drops: Counter[str] = Counter()
        self._durations: dict[str, list[float]] = {}
        self._sizes: tuple[Size | None, ...] = (None,) * len(MODALITIES)
        self.verdicts = (Verdict.OK,) * len(MODALITIES)
        self.processed = 0
        self.error = ""
        self.image_problem = ""

    def drop(self, reason: str) -> None:
        """Counts a pair that was not processed."""
        with self._lock:
            self._drops[reason] += 1

    @property
    def drops(self) -> dict[str, int]:
        """Pairs that were not processed, by reason."""
        with self._lock:
            return dict(self._drops)

    def took(self, **seconds: float) -> None:
        """Notes durations of one processed pair."""
        with self._lock:
            self.processed += 1
            for name, value in seconds.items():
                self._durations.setdefault(name, []).append(value)

    def take_timings(self) -> dict[str, Timing]:
        """The durations noted since the last call, by name; those that are NaN do not count."""
        with self._lock:
            durations, self._durations = self._durations, {}
        timings = {}
        for name, values in durations.items():
            known = [value for value in values if value == value]
            timings[name] = Timing(fmean(known), median(known), max(known)) if known else Timing(*[float("nan")] * 3)
        return timings

    def warn_once(self, text: str) -> None:
        """A warning, unless one that differs in its numbers at most has been given before."""
        if self._is_new(without_numbers(text)):
            self._warn(text)

    def unusable(self, error: Exception) -> None:
        """Notes a pair whose images cannot be used: a warning once per cause, and in diagnostics until one can."""
        self.image_problem = str(error)
        self.warn_once(f"image skipped, targets kept: {error}")

    def failure(self, error: Exception) -> None:
        """Notes an error of the tracker itself: the log has its origin, diagnostics say so until a pair succeeds."""
        self.error = f"{type(error).__name__}: {error}"
        if self._is_new(without_numbers(self.error)):
            trace = "".join(traceback.format_exception(error))
            self._fail(f"tracking failed, targets kept: {self.error}\n{trace}")

    def recovered(self) -> None:
        """A pair was processed: whatever was wrong is over."""
        self.error = self.image_problem = ""

    def cameras(self, verdicts: tuple[Verdict, ...]) -> None:
        """Notes what is thought of each camera, and warns when one goes and when it comes back."""
        for name, before, now in zip(MODALITIES, self.verdicts, verdicts, strict=True):
            if (before is Verdict.OK) != (now is Verdict.OK):
                gone = f"{name} images are {now.value}: see modality.timeout and modality.on_missing"
                self._warn(f"{name} images are back" if now is Verdict.OK else gone)
        self.verdicts = verdicts

    @property
    def camera_problem(self) -> str:
        """Which camera cannot be believed, and why; "" when both can."""
        return problem(self.verdicts)

    def sizes(self, sizes: tuple[Size | None, ...]) -> None:
        """Notes the image sizes of a pair, None = unknown, and warns of every change once."""
        for name, before, now in zip(MODALITIES, self._sizes, sizes, strict=True):
            if before and now and before != now and 0 not in now:
                text = f"{name} images changed from {before[0]}x{before[1]} to {now[0]}x{now[1]}"
                if self._is_new(text):
                    self._warn(f"{text}; targets are kept, and resized with it if the proportions are the same")
        self._sizes = tuple(
            now if now and 0 not in now else before for before, now in zip(self._sizes, sizes, strict=True)
        )

    @property
    def last_sizes(self) -> tuple[Size | None, ...]:
        """Per modality, the last known image size."""
        return self._sizes

    def _is_new(self, key: str) -> bool:
        with self._lock:
            if key in self._said or len(self._said) >= MOST_WARNINGS:
                return False
            self._said.add(key)
            last = len(self._said) == MOST_WARNINGS
        if last:
            self._warn(f"{MOST_WARNINGS} different warnings: from here on only /diagnostics has them")
        return True


def without_numbers(text: str) -> str:
    """What two messages have in common that differ in their numbers only."""
    return re.sub(r"[-+]?\d+(\.\d+)?", "#", text)
