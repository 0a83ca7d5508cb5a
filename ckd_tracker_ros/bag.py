"""Targets followed through a recorded bag, and the results as a bag: offline what the node does online, without ROS."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import ArrayLike
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ckd_tracker_ros.frame import MODALITIES, RgbtFrame
from ckd_tracker_ros.images import decode_pair, message_size
from ckd_tracker_ros.modality import NO_RGB_YET, ModalitySettings, Watch, check, problem
from ckd_tracker_ros.pairing import Pair, PairingSettings
from ckd_tracker_ros.registration import Registration, Size
from ckd_tracker_ros.sequences.bags import Bag, BagError, pairs, reported, why_no_pairs
from ckd_tracker_ros.share import share_folders
from ckd_tracker_ros.target import LostSettings, Status, Target
from ckd_tracker_ros.target import follow as follow_targets
from ckd_tracker_ros.target_messages import MessageTypes, targets_message
from ckd_tracker_ros.tracker import Tracker

TOPIC = "/ckd_tracker/targets"
"""Where the node publishes when it keeps its name."""
STORAGES = ("sqlite3", "mcap")
_MESSAGES = "ckd_tracker_msgs"
_ARRAY = f"{_MESSAGES}/msg/TrackedTargetArray"
_VERSION = 8  # of the bag's metadata: what Jazzy writes; newer distributions read it, 9 is not read by older ones


@dataclass
class Followed:
    """What has become of one target.

    Attributes:
        frames: pairs it was followed through, without the one it started on.
        frames_lost: those that ended as LOST.
        confidence: sum over the frames.
    """

    frames: int = 0
    frames_lost: int = 0
    confidence: float = 0.0


@dataclass
class Report:
    """What has become of a bag.

    Attributes:
        messages: written.
        unusable: pairs that were left out because of their images, by reason.
        dropped: images that left the pairing without a result, by reason.
        alone: images that were used without the other camera's, which was silent, by modality.
        assumed_size: of RGB images, where targets were started before one had come; None otherwise.
        targets: by id.
    """

    messages: int = 0
    unusable: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    alone: dict[str, int] = field(default_factory=dict)
    assumed_size: Size | None = None
    targets: dict[str, Followed] = field(default_factory=dict)


class ResultBag:
    """A new bag with one topic of TrackedTargetArray, for `with`.

    What was written stays when the block ends in a damaged recording or by Ctrl-C; otherwise an error leaves nothing.

    Args:
        path: of the folder that is made.
        storage: one of `STORAGES`.

    Raises:
        BagError: the folder is there already, another storage, or the message definitions are not found.
    """

    def __init__(self, path: Path, storage: str = STORAGES[0]) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer

        if storage not in STORAGES:
            raise BagError(f"storage is {storage!r}; allowed: {', '.join(STORAGES)}")
        if path.exists():
            raise BagError(f"{path} exists already; results go into a new folder")
        self._path = path
        self._store = _message_types()
        self._count = 0
        with reported(f"{path} cannot be written"):
            self._writer = Writer(path, version=_VERSION, storage_plugin=StoragePlugin[storage.upper()])
            self._writer.open()
            self._connection = self._writer.add_connection(TOPIC, _ARRAY, typestore=self._store)
        named = self._store.types
        self.types = MessageTypes(
            *(named[f"{_MESSAGES}/msg/{name}"] for name in ("Box2D", "TrackedTarget")), named[_ARRAY]
        )

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """std_msgs/Header."""
        named = self._store.types
        stamp = named["builtin_interfaces/msg/Time"](sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)
        return named["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)

    def write(self, message: Any, received_ns: int) -> None:
        """Adds a message, as if it had been recorded at that time.

        Raises:
            BagError: it cannot be written, as on a full disk.
        """
        with reported(f"{self._path} cannot be written"):
            self._writer.write(self._connection, received_ns, self._store.serialize_cdr(message, _ARRAY))
        self._count += 1

    def __enter__(self) -> ResultBag:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with reported(f"{self._path} cannot be written"):
            self._writer.close()
        if not self._count or not isinstance(error, (BagError, KeyboardInterrupt, type(None))):
            shutil.rmtree(self._path)


def _message_types() -> Any:
    """rosbags' types of ROS 2 and of ckd_tracker_msgs.

    Raises:
        BagError: the .msg files are not installed; lists where they were looked for.
    """
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    folders = [folder / _MESSAGES / "msg" for folder in share_folders()]
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        raise BagError(f"no definitions of {_MESSAGES}; looked for {', '.join(map(str, folders))}")
    store = get_typestore(Stores.LATEST)
    definitions = {}
    for file in sorted(found.glob("*.msg")):
        definitions.update(get_types_from_msg(file.read_text(encoding="utf-8"), f"{_MESSAGES}/msg/{file.stem}"))
    store.register(definitions)
    return store


def find_start(
    bag: Bag, cameras: tuple[str, str], settings: PairingSettings, after_s: float = 0.0, stamp_ns: int = 0
) -> int:
    """The number of the pair that boxes were drawn on.

    Args:
        after_s: seconds after the first pair of two images, by RGB stamps; after the first image that is used alone
            where there is no such pair.
        stamp_ns: the RGB stamp of the image; the nearest pair counts, as in ReinitializeTargets. 0: `after_s` counts.

    Raises:
        BagError: no pair at all, or none there; names what there is.
    """
    pairing, stamps, complete = settings.start(), [], None
    for number, pair in enumerate(pairs(bag, cameras, pairing, lambda recorded: None)):
        stamps.append(pair.rgb_stamp_ns)
        if complete is None and not math.isnan(pair.offset_ns):
            complete = number
            if not after_s and not stamp_ns:
                return complete
    if not stamps:
        raise why_no_pairs(bag, cameras, pairing)
    wanted = stamp_ns or stamps[complete or 0] + round(after_s * 1e9)
    nearest = min(range(len(stamps)), key=lambda number: abs(stamps[number] - wanted))
    margin = max(pairing.slop_ns, stamps[-1] - stamps[-2] if len(stamps) > 1 else 0)
    if not min(stamps) - margin <= wanted <= max(stamps) + margin:
        raise BagError(
            f"start at {wanted / 1e9:.9f} s lies outside {bag.path}, whose pairs are stamped "
            f"{min(stamps) / 1e9:.9f} to {max(stamps) / 1e9:.9f}"
        )
    return nearest


class Follower:
    """All targets of a bag, moved from pair to pair as the node's worker moves them.

    Args:
        starts: (4,) xywh boxes in RGB pixels of the first pair that is followed, by id.
        modality: what to do about cameras that give nothing.
        lost: when a target is believed, searched for, and given up.
    """

    def __init__(
        self,
        tracker: Tracker,
        starts: Mapping[str, ArrayLike],
        modality: ModalitySettings | None = None,
        lost: LostSettings | None = None,
    ) -> None:
        self.targets: list[Target] = []
        self._started = False
        self._tracker = tracker
        self._starts = starts
        self._lost = lost or LostSettings()
        self._modality = modality or ModalitySettings()
        self._watch = Watch()

    def advance(self, frame: RgbtFrame) -> tuple[bool, ...]:
        """Starts the targets in the first frame, and finds them in the others; per modality, whether it was used.

        Raises:
            ValueError: the frame cannot be used; the targets stay as they are.
        """
        self._watch, frame, verdicts = check(self._watch, frame, self._modality)
        if frame is None:
            raise ValueError(f"{problem(verdicts)}, and modality.on_missing is wait")
        if not self._started:
            self.targets = [Target.begin(id, "", self._tracker.start(frame, box)) for id, box in self._starts.items()]
            self._started = True
            return frame.present
        kept = [target for target in self.targets if target.status is not Status.REMOVED]
        self.targets = follow_targets(self._tracker, kept, frame, self._lost)
        return frame.present


def follow(
    tracker: Tracker,
    bag: Bag,
    cameras: tuple[str, str],
    starts: Mapping[str, ArrayLike],
    results: ResultBag,
    settings: PairingSettings,
    first: int = 0,
    console: Console | None = None,
    modality: ModalitySettings | None = None,
    lost: LostSettings | None = None,
) -> Report:
    """Follows targets through all pairs of a bag; one message for each, as the node sends them.

    The fields are those of the node: stamp and frame id of the RGB image. A message counts as recorded when its pair
    was complete. Pairs before the start have no targets; on the start pair targets have their start box and confidence
    1. Latency is NaN: nothing waited for anything.

    Args:
        starts: (4,) xywh boxes in RGB pixels by id.
        first: number of the pair they were drawn on, see `find_start`.
        modality: what to do about cameras that give nothing; `settings` says when a frame leaves alone.
        lost: when a target is believed, searched for, and given up.

    Raises:
        ValueError: the start pair cannot be used, or a start box (BoxError).
        BagError: no pair, or the bag is damaged; what came before is in `results`.
    """
    console = console or Console(quiet=True)
    report = Report(targets={id: Followed() for id in starts})
    pairing, follower = settings.start(), Follower(tracker, starts, modality, lost)
    sizes: tuple[Size | None, ...] = (None, None)
    skipped, frame_id = 0, ""
    shown = track(
        pairs(bag, cameras, pairing),
        bag.path.name,
        next((topic.count for topic in bag.topics if topic.name == cameras[0]), None),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for number, pair in enumerate(shown):
        began_ns = time.monotonic_ns()
        present = tuple(item is not None for item in pair.items)
        if pair.items[0] is not None:
            frame_id = pair.items[0].header.frame_id
        if number < first:
            now: tuple[Size | None, ...] = tuple(map(message_size, pair.items))
        else:
            try:
                frame = decode_pair(pair)
                now = tuple(image and (image.width, image.height) for image in frame.images)
                present = follower.advance(frame)
            except ValueError as error:
                if number == first:
                    raise
                skipped += 1
                report.unusable[str(error)] = report.unusable.get(str(error), 0) + 1
                continue
        sizes = tuple(size or before for size, before in zip(now, sizes, strict=True))
        if number >= first and sizes[0] is None:  # no RGB image so far
            sizes = (sizes[1], sizes[1])
            report.assumed_size = sizes[1]
        message = _message(
            results, pair, frame_id, present, follower.targets, tracker.settings.registration, sizes, skipped, began_ns
        )
        results.write(message, pair.arrival_ns)
        report.messages, skipped = report.messages + 1, 0
        if number > first:
            _count(report, follower.targets)
    if not pairing.pairs and not any(pairing.alone):
        raise why_no_pairs(bag, cameras, pairing)
    report.alone = {name: count for name, count in zip(MODALITIES, pairing.alone, strict=True) if count}
    report.dropped = {reason.value: count for reason, count in pairing.counts.items() if count}
    return report


def _message(
    results: ResultBag,
    pair: Pair,
    frame_id: str,
    present: tuple[bool, ...],
    targets: list[Target],
    registration: Registration,
    sizes: tuple[Size | None, ...],
    skipped: int,
    began_ns: int,
) -> Any:
    return targets_message(
        results.types,
        results.header(pair.rgb_stamp_ns, frame_id),
        targets,
        registration,
        sizes,
        present,
        sync_offset=pair.offset_ns / 1e9,
        latency=math.nan,
        processing_time=(time.monotonic_ns() - began_ns) / 1e9,
        skipped_pairs=skipped,
    )


def _count(report: Report, targets: list[Target]) -> None:
    for target in targets:
        followed = report.targets[target.id]
        followed.frames += 1
        followed.frames_lost += target.frames_lost > 0
        followed.confidence += target.confidence


def summary(report: Report) -> Table:
    """For people: a line for each target."""
    table = Table("target", "pairs", "lost in", "mean confidence")
    for id, followed in report.targets.items():
        mean = f"{followed.confidence / followed.frames:.2f}" if followed.frames else ""
        table.add_row(id, str(followed.frames), str(followed.frames_lost), mean)
    return table


def remarks(report: Report) -> list[str]:
    """For people: what was left out, and why."""
    lines = []
    if report.alone:
        counts = ", ".join(f"{count} {name}" for name, count in report.alone.items())
        lines.append(f"images used alone, the other camera being silent: {counts}")
    if report.assumed_size:
        lines.append(NO_RGB_YET.format(*report.assumed_size))
    if report.dropped:
        lines.append("images without a partner: " + ", ".join(f"{n} {why}" for why, n in report.dropped.items()))
    if report.unusable:
        reason = next(iter(report.unusable))
        lines.append(f"pairs that cannot be used: {sum(report.unusable.values())}, the first because of: {reason}")
    return lines
