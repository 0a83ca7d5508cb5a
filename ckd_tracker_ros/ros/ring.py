"""The recent past, undecoded: pairs of messages for requests that carry a past stamp."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ckd_tracker_ros.pairing import Pair


class RingError(LookupError):
    """No pair fits the asked stamp; the message names the range that there is."""


class Ring:
    """Recent pairs, oldest first, each with the serial number of its arrival.

    Bounded by time (arrival) and memory; the newest pair always stays, whatever the bounds. Safe to use from several
    threads.
    """

    def __init__(self, seconds: float, max_bytes: int, size_of: Callable[[Any], int]) -> None:
        """`size_of` gives the bytes of one item of a pair."""
        self._seconds_ns = round(seconds * 1e9)
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._entries: deque[tuple[int, Pair, int]] = deque()
        self._bytes = 0
        self._serial = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """What the images of all pairs take."""
        return self._bytes

    def append(self, pair: Pair) -> int:
        """Adds the newest pair and drops what is over the bounds; its serial number, rising from 1.

        A pair whose stamp goes back (a looped recording) starts the ring anew, so that a stamp stays unambiguous.
        """
        size = sum(self._size_of(item) for item in pair.items if item is not None)
        with self._lock:
            if self._entries and pair.rgb_stamp_ns < self._entries[-1][1].rgb_stamp_ns:
                self._entries.clear()
                self._bytes = 0
            self._serial += 1
            self._entries.append((self._serial, pair, size))
            self._bytes += size
            while len(self._entries) > 1 and (
                self._bytes > self._max_bytes or pair.arrival_ns - self._entries[0][1].arrival_ns > self._seconds_ns
            ):
                self._bytes -= self._entries.popleft()[2]
            return self._serial

    def since(self, stamp_ns: int, slop_ns: int) -> list[tuple[int, Pair]]:
        """The pair nearest to an RGB stamp and all newer ones, as (serial, pair); stamp 0 = the newest pair alone.

        An RGB image whose thermal partner is still missing is at most one interval of pairs, or `slop_ns`, outside.

        Raises:
            RingError: there is no pair yet, or the stamp lies outside the ring.
        """
        with self._lock:
            entries = [(serial, pair) for serial, pair, _ in self._entries]
        if not entries:
            raise RingError("no image yet: no pair of images has arrived since activation")
        if stamp_ns == 0:
            return entries[-1:]
        stamps = [pair.rgb_stamp_ns for _, pair in entries]
        margin = max(slop_ns, stamps[-1] - stamps[-2] if len(stamps) > 1 else 0)
        if not stamps[0] - margin <= stamp_ns <= stamps[-1] + margin:
            raise RingError(
                f"stamp {stamp_ns / 1e9:.9f} lies outside the pairs that are kept, "
                f"{stamps[0] / 1e9:.9f} to {stamps[-1] / 1e9:.9f} (replay.seconds, replay.max_mb)"
            )
        nearest = min(range(len(stamps)), key=lambda index: abs(stamps[index] - stamp_ns))
        return entries[nearest:]

    def newer_than(self, serial: int) -> list[tuple[int, Pair]]:
        """All pairs that arrived after that one, as (serial, pair)."""
        with self._lock:
            return [(number, pair) for number, pair, _ in self._entries if number > serial]

    def clear(self) -> None:
        """Forgets all pairs; serial numbers go on."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
