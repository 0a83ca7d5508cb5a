"""The targets of a node, shared between the worker that moves them and the services that start and stop them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ckd_tracker_ros.target import Status, Target

LONGEST_TEXT = 256
"""Characters of an id or a label: every message with the target carries both."""
MOST_NAMED = 10
"""Ids in the reason of a refusal."""


class RequestError(ValueError):
    """A request that is refused whole; the message names the value and why."""


@dataclass(frozen=True)
class Start:
    """One target of a request: id ("" = assign one), label ("" = keep that of the restarted one), xywh box."""

    id: str
    label: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Entry:
    """A target and the serial number of the last pair that it has seen."""

    target: Target
    serial: int


class Roster:
    """Targets in the order of their start. Every method returns at once and may be called from any thread.

    A step takes long and targets may come and go meanwhile: `commit` takes its results only for targets that are still
    the very ones it began with, so that nothing that was removed or restarted comes back.
    """

    def __init__(self, max_targets: int) -> None:
        self.max_targets = max_targets
        self._entries: dict[str, Entry] = {}
        self._removed: dict[str, Target] = {}
        self._generation = 0
        self._next_id = 1
        self._lock = threading.Lock()

    @property
    def generation(self) -> int:
        """Rises with every `reset`."""
        return self._generation

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All targets as they are now."""
        with self._lock:
            return tuple(self._entries.values())

    def commit(self, steps: Iterable[tuple[Entry, Entry]]) -> None:
        """Replaces each first entry by the second one, where the first is still there; given up targets leave."""
        with self._lock:
            for before, after in steps:
                if self._entries.get(before.target.id) is before:
                    self._entries[before.target.id] = after
                    if after.target.status is Status.REMOVED:
                        self._drop(after.target.id)

    def report(self) -> tuple[tuple[Target, ...], tuple[Target, ...]]:
        """What the next message says: targets, and those removed since the last call, with status REMOVED."""
        with self._lock:
            removed, self._removed = tuple(self._removed.values()), {}
            return tuple(entry.target for entry in self._entries.values()), removed

    def remove(self, ids: Sequence[str]) -> None:
        """Stops following targets.

        Raises:
            RequestError: an id is not tracked; nothing is removed then.
        """
        with self._lock:
            if unknown := [id for id in ids if id not in self._entries]:
                raise RequestError(f"no target with id {_quoted(unknown)}; tracked: {_quoted(self._entries) or 'none'}")
            for id in dict.fromkeys(ids):
                self._drop(id)

    def reset(self) -> int:
        """Stops following everything, also what is being started just now; how many targets there were."""
        with self._lock:
            self._generation += 1
            count = len(self._entries)
            for id in list(self._entries):
                self._drop(id)
            return count

    def clear(self) -> None:
        """Forgets everything, without REMOVED."""
        with self._lock:
            self._generation += 1
            self._entries, self._removed = {}, {}

    def plan(self, starts: Sequence[Start], replace_all: bool) -> list[Start]:
        """The same starts with every id and label filled in.

        Raises:
            RequestError: repeated ids, too many targets, nothing to do, an id or a label that is too long.
        """
        if not starts and not replace_all:
            raise RequestError("the request names no target")
        for start in starts:
            for what, text in (("id", start.id), ("label", start.label)):
                if len(text) > LONGEST_TEXT:
                    raise RequestError(
                        f"{what} {_short(text)!r} has {len(text)} characters; allowed: at most {LONGEST_TEXT}"
                    )
        given = Counter(start.id for start in starts if start.id)
        if repeated := [id for id, count in given.items() if count > 1]:
            raise RequestError(f"id {_quoted(repeated)} repeats in the request")
        with self._lock:
            self._check_room(given.keys(), len(starts) - len(given), replace_all)
            planned = []
            for start in starts:
                known = self._entries.get(start.id)
                label = start.label or (known.target.label if known else "")
                planned.append(replace(start, id=start.id or self._assign(given), label=label))
            return planned

    def admit(self, entries: Sequence[Entry], replace_all: bool, generation: int) -> None:
        """Adds started targets, in place where the id is known.

        Args:
            entries: the new targets.
            replace_all: drop every other one in the same step.
            generation: of the moment of the request.

        Raises:
            RequestError: a reset came meanwhile, or there is no room any more; nothing has changed then.
        """
        with self._lock:
            if generation != self._generation:
                raise RequestError("a reset came while the targets were being started")
            new = {entry.target.id: entry for entry in entries}
            self._check_room(new.keys(), 0, replace_all)
            if replace_all:
                for id in [id for id in self._entries if id not in new]:
                    self._drop(id)
            for id, entry in new.items():
                self._entries[id] = entry
                self._removed.pop(id, None)

    def _check_room(self, ids: Iterable[str], unnamed: int, replace_all: bool) -> None:
        kept = set() if replace_all else set(self._entries)
        count = len(kept | set(ids)) + unnamed
        if count > self.max_targets:
            raise RequestError(f"too many targets: {count} with this request, at most {self.max_targets} (max_targets)")

    def _assign(self, taken: Iterable[str]) -> str:
        while str(self._next_id) in taken or str(self._next_id) in self._entries:
            self._next_id += 1
        self._next_id += 1
        return str(self._next_id - 1)

    def _drop(self, id: str) -> None:
        self._removed[id] = replace(self._entries.pop(id).target, status=Status.REMOVED)


def _quoted(ids: Iterable[str]) -> str:
    ids = list(ids)
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    return ", ".join(repr(_short(id)) for id in ids[:MOST_NAMED]) + more


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
