"""The pairing policies of message_filters behind the interface of `pairing.NearestPairing`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

from ckd_tracker_ros.pairing import THERMAL, Pair, Reason
from ckd_tracker_ros.parameters import ParameterError
from ckd_tracker_ros.ros.messages import to_time


@dataclass(eq=False)
class _Stamped:
    """What a synchronizer sees of an image: a header with the corrected stamp."""

    header: SimpleNamespace
    stamp_ns: int
    item: Any


class FilterPairing:
    """`approximate` and `exact` as message_filters has them, the delay of the thermal camera taken off before.

    The synchronizer calls back while it holds its lock, and would stay locked if the callback raised: this one only
    keeps the pair, which `push` then returns.

    Raises:
        ParameterError: message_filters is not installed.
    """

    def __init__(self, policy: str, slop_ns: int, queue_size: int, thermal_delay_ns: int) -> None:
        filters = _import(policy)
        self.thermal_delay_ns = thermal_delay_ns
        self.nearest_offset_ns: int | None = None
        self._unset = 0
        self._last: list[int | None] = [None, None]
        self._pair: tuple[_Stamped, _Stamped] | None = None
        self._inputs = (filters.SimpleFilter(), filters.SimpleFilter())
        if policy == "exact":
            self._synchronizer = filters.TimeSynchronizer(list(self._inputs), queue_size)
        else:
            # Keywords: the order of the arguments has changed between distributions.
            self._synchronizer = filters.ApproximateTimeSynchronizer(
                fs=list(self._inputs), queue_size=queue_size, slop=slop_ns / 1e9
            )
        self._synchronizer.registerCallback(self._keep)

    @property
    def counts(self) -> dict[Reason, int]:
        """Images that were left out before the synchronizer, by reason; it does not say what it drops itself."""
        return dict(Counter({Reason.STAMP_UNSET: self._unset}))

    def push(self, stream: int, stamp_ns: int, arrival_ns: int, item: Any) -> tuple[Pair, ...]:
        """See `NearestPairing.push`."""
        if stamp_ns == 0:
            self._unset += 1
            return ()
        corrected = stamp_ns - self.thermal_delay_ns if stream == THERMAL else stamp_ns
        self._last[stream] = corrected
        if None not in self._last:
            self.nearest_offset_ns = self._last[1] - self._last[0]
        self._pair = None
        header = SimpleNamespace(stamp=to_time(max(corrected, 0)))
        self._inputs[stream].signalMessage(_Stamped(header, stamp_ns, item))
        if self._pair is None:
            return ()
        rgb, thermal = self._pair
        offset_ns = thermal.stamp_ns - self.thermal_delay_ns - rgb.stamp_ns
        return (Pair(rgb.stamp_ns, thermal.stamp_ns, (rgb.item, thermal.item), arrival_ns, offset_ns),)

    def _keep(self, rgb: _Stamped, thermal: _Stamped) -> None:
        self._pair = (rgb, thermal)


def _import(policy: str) -> ModuleType:
    try:
        import message_filters
    except ImportError as error:
        raise ParameterError(
            f"sync.policy {policy} needs message_filters, which is not installed; use nearest"
        ) from error
    return message_filters
