"""Frames of two cameras to pairs, by stamp: no ROS, no threads, and no clock but the arrival times handed in.

A frame that arrives leaves at once with the nearest waiting frame of the other stream inside the slop, or waits for
one; no pair is held back for a better one. With a slop above half a frame period, one lost frame would so shift all
later pairs by a frame. Therefore a waiting frame that clearly belongs to a frame already gone is left alone: that costs
one pair and brings the streams back into step. Where one thermal frame may serve several RGB frames (`reuse`), all that
wait for it inside the slop leave with it, the oldest first, and later ones at once.

Rules that keep the output in order:

- Within a stream, a pair's stamp is later than the last one's (a reused thermal stamp may repeat). Frames that can no
  longer leave are dropped.
- The buffer of a stream is its last `queue_size` arrivals. A frame older than all of them is suspected of a backward
  jump (looped bag, clock set back). The suspicion is confirmed by the next frame of its stream, when it goes on from
  there, or at once by a partner inside the slop that has jumped too; then the stream starts anew from the suspects.
  A single late frame is followed by a frame in order: it was no jump. The streams may so jump at different moments.
- Where a timeout is set, frames of a camera leave alone when it has given some for longer while nothing usable came
  from the other one (no frame, unset or stuck stamps; also from the start), until that gives something. A pause of both
  is no silence. What they overtake cannot leave any more, but for thermal frames that may serve later RGB frames.
- Where stamps go back by less than the buffer, `queue_size` frames in a row that could not leave are a jump as well.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ckd_tracker_ros.frame import MODALITIES

RGB, THERMAL = range(len(MODALITIES))


class Reason(str, Enum):
    """Why a frame left without a partner. Known when it leaves the buffer, and counted then."""

    NO_PARTNER = "no_partner"
    """The other stream gave frames meanwhile, none of them inside the slop."""
    PARTNER_SILENT = "partner_silent"
    """The other stream gave nothing from its arrival until the buffer pushed it out."""
    STAMP_UNSET = "stamp_unset"
    """Its stamp is 0."""
    OLDER_THAN_LAST_PAIR = "older_than_last_pair"
    """It arrived with a stamp not later than that of the last pair."""
    SUPERSEDED = "superseded"
    """The frame inside the slop that it could have left with had left, or left, with another."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two frames of the same moment, or one where the other camera is silent.

    Attributes:
        rgb_stamp_ns: as the camera gave it; without an RGB frame the thermal stamp less the delay.
        thermal_stamp_ns: as the camera gave it, not corrected by the delay; 0 without a thermal frame.
        items: what was pushed with the RGB and the thermal frame; None for the one that is missing.
        arrival_ns: when the later of the two arrived, which is when the pair left.
        offset_ns: corrected thermal stamp less RGB stamp; NaN where one is missing.
    """

    rgb_stamp_ns: int
    thermal_stamp_ns: int
    items: tuple[Any, Any]
    arrival_ns: int
    offset_ns: float


@dataclass(eq=False)
class _Waiting:
    """A frame without a partner so far."""

    stamp: int
    item: Any
    number: int  # of its arrival in its stream
    others: int  # frames the other stream had given when it arrived
    superseded: bool  # whether a frame it could have left with is gone
    suspect: bool  # whether it may be the first after a backward jump


class _Stream:
    """What is remembered of one camera. All stamps are as the camera gave them."""

    def __init__(self, queue_size: int) -> None:
        self.received = 0
        self.paired = 0
        self.alone = 0
        self.stamp = 0  # of the last arrival
        self.since_ns: int | None = (
            None  # arrival of its first frame that could be paired, behind the other stream's last
        )
        self.dropped: Counter[Reason] = Counter()
        self.jumps = 0
        self.waiting: list[_Waiting] = []
        self.recent: deque[int] = deque(maxlen=queue_size)  # stamps of the last arrivals in order
        self.last: int | None = None  # stamp in the last pair
        self.reusable: _Waiting | None = None  # the frame in the last pair, where it may leave again
        self.suspect: int | None = None  # stamp of the previous arrival, if that was a suspect
        self.refused = 0  # arrivals in a row that could not leave
        self.timeline = 0  # jumps so far, brought level with the other stream's by every pair

    def is_late(self, stamp: int) -> bool:
        return self.last is not None and stamp <= self.last


@dataclass(frozen=True)
class PairingSettings:
    """What the user says about pairs; times in seconds.

    Attributes:
        slop: largest difference of the stamps of a pair.
        queue_size: images of each camera that wait for a partner.
        thermal_delay: subtracted from thermal stamps before pairing.
        reuse: whether one thermal image may serve several RGB images.
        timeout: of silence of one camera, after which images of the other leave alone; None = never.
    """

    slop: float = 0.02
    queue_size: int = 10
    thermal_delay: float = 0.0
    reuse: bool = False
    timeout: float | None = None

    def start(self) -> NearestPairing:
        """A pairing that has seen nothing yet.

        Raises:
            ValueError: see `NearestPairing`.
        """
        timeout_ns = None if self.timeout is None else round(self.timeout * 1e9)
        return NearestPairing(
            round(self.slop * 1e9), self.queue_size, round(self.thermal_delay * 1e9), self.reuse, timeout_ns
        )


class NearestPairing:
    """Pairs each frame with the nearest of the other stream; not thread-safe.

    Args:
        slop_ns: largest distance of the stamps in a pair, inclusive.
        queue_size: arrivals of a stream after which a frame no longer waits.
        thermal_delay_ns: how much later thermal stamps are than RGB stamps of the same moment; may be set at any time.
        reuse: whether the last thermal frame may leave with several RGB frames; may be set at any time.
        timeout_ns: of silence of one camera, after which frames of the other leave alone; None = never; may be set at
            any time.

    Attributes:
        pairs: made of two frames.
        last_arrival_ns: per stream, when its last frame arrived, None before the first.
        nearest_offset_ns: corrected thermal less RGB stamp between the last frame that found any candidate and the
            nearest of them, inside the slop or not; None before. Tells a slop that is too small from clocks that
            disagree.

    Raises:
        ValueError: negative slop or a queue without room.
    """

    def __init__(
        self,
        slop_ns: int,
        queue_size: int,
        thermal_delay_ns: int = 0,
        reuse: bool = False,
        timeout_ns: int | None = None,
    ) -> None:
        if slop_ns < 0:
            raise ValueError(f"slop is {slop_ns} ns; allowed: 0 or more")
        if queue_size < 1:
            raise ValueError(f"queue size is {queue_size}; allowed: 1 or more")
        self.slop_ns = int(slop_ns)
        self.queue_size = int(queue_size)
        self.thermal_delay_ns = int(thermal_delay_ns)
        self.reuse = bool(reuse)
        self.timeout_ns = timeout_ns
        self.last_arrival_ns: list[int | None] = [None, None]
        self.nearest_offset_ns: int | None = None
        self.pairs = 0
        self._streams = (_Stream(self.queue_size), _Stream(self.queue_size))

    @property
    def received(self) -> tuple[int, int]:
        """Frames pushed, per stream: always `paired` + `alone` + all of `dropped` + `waiting`."""
        return tuple(stream.received for stream in self._streams)

    @property
    def paired(self) -> tuple[int, int]:
        """Frames that left in a pair, per stream; a reused one counts once."""
        return tuple(stream.paired for stream in self._streams)

    @property
    def alone(self) -> tuple[int, int]:
        """Frames that left without the other camera's, which was silent, per stream."""
        return tuple(stream.alone for stream in self._streams)

    @property
    def waiting(self) -> tuple[int, int]:
        """Frames that still may find a partner, per stream."""
        return tuple(len(stream.waiting) for stream in self._streams)

    @property
    def dropped(self) -> tuple[dict[Reason, int], dict[Reason, int]]:
        """Frames that left without a partner, per stream and reason; every reason is listed."""
        return tuple({reason: stream.dropped[reason] for reason in Reason} for stream in self._streams)

    @property
    def counts(self) -> dict[Reason, int]:
        """Frames of both streams that left without a partner, by reason."""
        return {reason: sum(stream.dropped[reason] for stream in self._streams) for reason in Reason}

    @property
    def jumps(self) -> tuple[int, int]:
        """Backward jumps seen, per stream."""
        return tuple(stream.jumps for stream in self._streams)

    def push(self, stream: int, stamp_ns: int, arrival_ns: int, item: Any) -> tuple[Pair, ...]:
        """Take a frame as it arrives.

        Args:
            stream: 0 for RGB, 1 for thermal.
            stamp_ns: as the camera gave it; 0 means unset.
            arrival_ns: now, by any clock.
            item: handed back in the pair, never looked at.

        Returns:
            The pair that this frame completes, if any; with `reuse` a thermal frame may complete several, oldest first.
            The frame alone, where the other camera is silent.

        Raises:
            ValueError: no such stream.
        """
        if stream not in (RGB, THERMAL):
            raise ValueError(f"stream is {stream}; allowed: 0 ({MODALITIES[0]}), 1 ({MODALITIES[1]})")
        own, other = self._streams[stream], self._streams[1 - stream]
        stamp = int(stamp_ns)
        own.received += 1
        self.last_arrival_ns[stream] = int(arrival_ns)
        self._drop_outdated(own, other)
        stuck, own.stamp = stamp == own.stamp, stamp
        if stamp == 0:
            own.dropped[Reason.STAMP_UNSET] += 1
            return ()

        if not stuck:  # also when it is too late: a camera that has returned is waited for again
            own.since_ns = int(arrival_ns) if own.since_ns is None else own.since_ns
            other.since_ns = None
        superseded = other.last is not None and abs(self._offset(stream, stamp, other.last)) <= self.slop_ns
        frame = _Waiting(stamp, item, own.received, other.received, superseded, suspect=False)
        if not self._admit(stream, frame):
            own.dropped[Reason.OLDER_THAN_LAST_PAIR] += 1
            return ()
        if not own.is_late(stamp):
            partner = self._nearest(stream, stamp)
            if partner is not None:
                served = self._served(frame, partner) if self.reuse and stream == THERMAL else [partner]
                return tuple(self._leave(stream, frame, each, int(arrival_ns)) for each in served)
            alone = self._is_silent(own, int(arrival_ns)) and self._goes_on(stream, stamp)
            if alone and not frame.suspect and not stuck:
                return (self._leave_alone(stream, frame, int(arrival_ns)),)
        own.waiting.append(frame)
        return ()

    def clear(self) -> None:
        """Forget all stamps and drop what waits, as after a pause; counts go on."""
        for stream in (RGB, THERMAL):
            own, other = self._streams[stream], self._streams[1 - stream]
            self._drop(own, other, own.waiting)
            own.recent.clear()
            own.last = own.reusable = own.suspect = None
            own.refused = 0
            own.timeline = 0
            own.since_ns = None

    def _is_silent(self, own: _Stream, arrival_ns: int) -> bool:
        """Whether the camera beside `own` is not waited for any more."""
        since = own.since_ns
        return self.timeout_ns is not None and since is not None and arrival_ns - since > self.timeout_ns

    def _goes_on(self, stream: int, stamp: int) -> bool:
        """Whether a frame alone would be later than all that has left: a pair's RGB frame may be the later one."""
        own, other = self._streams[stream], self._streams[1 - stream]
        if stream == RGB or other.last is None or own.timeline > other.timeline:
            return True
        return stamp - self.thermal_delay_ns > other.last

    def _leave_alone(self, stream: int, frame: _Waiting, arrival_ns: int) -> Pair:
        """Send a frame without a partner, and shut the door behind its moment in both streams."""
        own, other = self._streams[stream], self._streams[1 - stream]
        shift = self.thermal_delay_ns if stream == RGB else -self.thermal_delay_ns
        moment = frame.stamp + shift  # by the other camera's clock
        own.last = frame.stamp
        # A stream that has not followed a jump yet starts anew; else a partner of before may have been later than this.
        stays = other.last is not None and other.timeline == own.timeline
        if not stays:
            other.last = moment
        elif not (self.reuse and stream == RGB):  # a thermal frame of before may still serve later RGB frames
            other.last = max(other.last, moment)
        own.timeline = other.timeline = max(own.timeline, other.timeline)
        own.refused = 0
        own.alone += 1
        for one, opposite in ((own, other), (other, own)):
            one.reusable = None
            self._drop(one, opposite, [w for w in one.waiting if one.is_late(w.stamp) and not w.suspect])
        items = (frame.item, None) if stream == RGB else (None, frame.item)
        stamps = (frame.stamp, 0) if stream == RGB else (moment, frame.stamp)
        return Pair(*stamps, items, arrival_ns, math.nan)

    def _offset(self, stream: int, stamp: int, other_stamp: int) -> int:
        """Corrected thermal less RGB stamp, `stamp` being of `stream`."""
        rgb, thermal = (stamp, other_stamp) if stream == RGB else (other_stamp, stamp)
        return thermal - self.thermal_delay_ns - rgb

    def _admit(self, stream: int, frame: _Waiting) -> bool:
        """Place a frame in its stream's time: in order, suspected of a jump, after a jump, or (False) too late."""
        own, other = self._streams[stream], self._streams[1 - stream]
        behind = other.timeline > own.timeline  # the other stream has jumped, this one has not
        late = own.is_late(frame.stamp)
        full = len(own.recent) == self.queue_size
        frame.suspect = (full and frame.stamp < min(own.recent)) or (late and behind)
        if frame.suspect:
            continues = own.suspect is not None and frame.stamp > own.suspect
            if not continues:
                self._acquit(own)
            partner = self._jumped_partner(stream, frame.stamp)
            own.suspect = frame.stamp
            if partner is not None and partner.suspect:
                self._jump(1 - stream, partner.stamp)
            if continues or partner is not None:
                self._jump(stream, frame.stamp)
                frame.suspect = False
        else:
            self._acquit(own)
            own.refused = own.refused + 1 if late else 0
            if late and own.refused < self.queue_size:
                return False
            if late:
                self._jump(stream, frame.stamp)
        if not frame.suspect:
            own.recent.append(frame.stamp)
        return True

    def _jumped_partner(self, stream: int, stamp: int) -> _Waiting | None:
        """A frame of the other stream that supports a jump of this one to `stamp`."""
        own, other = self._streams[stream], self._streams[1 - stream]
        for frame in other.waiting:
            jumped = frame.suspect or other.timeline > own.timeline
            if jumped and abs(self._offset(stream, stamp, frame.stamp)) <= self.slop_ns:
                return frame
        return None

    def _acquit(self, own: _Stream) -> None:
        """The suspects of a stream were only late: those that still can leave in order go on waiting."""
        if own.suspect is None:
            return
        own.suspect = None
        kept = []
        for frame in own.waiting:
            if frame.suspect and own.is_late(frame.stamp):
                own.dropped[Reason.OLDER_THAN_LAST_PAIR] += 1
            else:
                frame.suspect = False
                kept.append(frame)
        own.waiting = kept

    def _jump(self, stream: int, stamp: int) -> None:
        """Start a stream anew at `stamp`, with the suspects that led there."""
        own, other = self._streams[stream], self._streams[1 - stream]
        self._drop(own, other, [frame for frame in own.waiting if not frame.suspect])
        own.recent.clear()
        for frame in own.waiting:
            frame.suspect = False
            own.recent.append(frame.stamp)
        if own.is_late(stamp):  # else the last pair was made after the jump, by a suspect that was not late
            own.last = own.reusable = None
        own.suspect = None
        own.refused = 0
        own.jumps += 1
        own.timeline = max(own.timeline + 1, other.timeline)

    def _nearest(self, stream: int, stamp: int) -> _Waiting | None:
        """The frame of the other stream that `stamp` leaves with; later ones win ties."""
        own, other = self._streams[stream], self._streams[1 - stream]
        candidates = [frame for frame in other.waiting if not other.is_late(frame.stamp)]
        if self.reuse and stream == RGB and other.reusable is not None:
            candidates.append(other.reusable)
        if not candidates:
            return None
        best = min(candidates, key=lambda frame: (abs(self._offset(stream, stamp, frame.stamp)), -frame.stamp))
        self.nearest_offset_ns = self._offset(stream, stamp, best.stamp)
        distance = abs(self.nearest_offset_ns)
        out_of_step = (
            not self.reuse and own.last is not None and 2 * abs(self._offset(stream, own.last, best.stamp)) < distance
        )
        return best if distance <= self.slop_ns and not out_of_step else None

    def _served(self, thermal: _Waiting, nearest: _Waiting) -> list[_Waiting]:
        """The RGB frames that leave with a thermal frame which has just come, `nearest` among them, oldest first."""
        rgb = self._streams[RGB]
        others = [
            frame
            for frame in rgb.waiting
            if not (frame.suspect or nearest.suspect or rgb.is_late(frame.stamp))
            and abs(self._offset(THERMAL, thermal.stamp, frame.stamp)) <= self.slop_ns
        ]
        by_stamp = {frame.stamp: frame for frame in (*others, nearest)}
        return [by_stamp[stamp] for stamp in sorted(by_stamp)]

    def _leave(self, stream: int, frame: _Waiting, partner: _Waiting, arrival_ns: int) -> Pair:
        """Make the pair and drop what it has overtaken in both streams."""
        pair = (frame, partner) if stream == RGB else (partner, frame)
        timeline = max(own.timeline for own in self._streams)
        for index, own in enumerate(self._streams):
            member, opposite = pair[index], pair[1 - index]
            own.paired += member is not own.reusable
            own.reusable = member if self.reuse and index == THERMAL else None
            own.last = member.stamp
            own.timeline = timeline
            own.refused = 0
            kept = []
            for waiting in own.waiting:
                if waiting is member:
                    continue
                if abs(self._offset(index, waiting.stamp, opposite.stamp)) <= self.slop_ns:
                    waiting.superseded = True
                if waiting.suspect or waiting.stamp > member.stamp:
                    kept.append(waiting)
                else:
                    own.dropped[Reason.SUPERSEDED if waiting.superseded else Reason.NO_PARTNER] += 1
            own.waiting = kept
        rgb, thermal = pair
        self.pairs += 1
        offset = self._offset(RGB, rgb.stamp, thermal.stamp)
        return Pair(rgb.stamp, thermal.stamp, (rgb.item, thermal.item), arrival_ns, offset)

    def _drop_outdated(self, own: _Stream, other: _Stream) -> None:
        """Make room: no frame waits for longer than `queue_size` arrivals of its own stream."""
        if own.waiting and own.waiting[0].number <= own.received - self.queue_size:
            self._drop(own, other, own.waiting[:1])

    def _drop(self, own: _Stream, other: _Stream, frames: list[_Waiting]) -> None:
        """Take frames out of the buffer, each with its reason."""
        for frame in frames:
            if frame.superseded:
                reason = Reason.SUPERSEDED
            elif frame.others == other.received:
                reason = Reason.PARTNER_SILENT
            else:
                reason = Reason.NO_PARTNER
            own.dropped[reason] += 1
        own.waiting = [frame for frame in own.waiting if frame not in frames]
