"""Recorded rosbag2 bags (sqlite3 and MCAP) without ROS, through the library rosbags: images, pairs, a `Sequence`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from ckd_tracker_ros import causes
from ckd_tracker_ros.frame import MODALITIES, RgbtFrame
from ckd_tracker_ros.images import ImageError, decode_pair, to_ns
from ckd_tracker_ros.pairing import NearestPairing, Pair, PairingSettings, Reason
from ckd_tracker_ros.sequences.recording import DEFAULT_RATE, Boxes
from ckd_tracker_ros.sequences.sources import SequenceError

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
STORAGE_ENDS = (".db3", ".mcap")
METADATA = "metadata.yaml"
_PACKED = tuple(f"{end}.zstd" for end in STORAGE_ENDS)
_WORDS = {"rgb": ("rgb", "color", "colour", "visible"), "thermal": ("thermal", "infrared", "ir", "lwir")}
_MODALITY_OF = {word: modality for modality, words in _WORDS.items() for word in words}
_OTHER = {"depth", "debug"}  # words of images that are no camera's picture
_TRANSPORT = re.compile(r"/(compressed|compressedDepth)$")


class BagError(SequenceError):
    """A bag cannot be read or written, or has not what is asked of it; the message says what it has."""


class Topic(NamedTuple):
    """One topic of a bag: its name, message type (`sensor_msgs/msg/Image`) and number of messages."""

    name: str
    type: str
    count: int


class Key(NamedTuple):
    """Which message of a bag: topic, receive time in ns, and its number among those of the same topic and time."""

    topic: str
    received_ns: int
    number: int


@dataclass(frozen=True, eq=False)
class Recorded:
    """One message as it was recorded; an image in it is not decoded.

    Attributes:
        key: which one it is.
        message: with the fields of its type, for `images.decode`.
    """

    key: Key
    message: Any


def is_bag(path: Path) -> bool:
    """Whether a path looks like a bag: a storage file, or a folder with one or with bag metadata."""
    if not path.is_dir():
        return path.suffix in STORAGE_ENDS
    return (path / METADATA).is_file() or any(file.name.endswith(STORAGE_ENDS + _PACKED) for file in path.iterdir())


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Whatever the library says about a bag as a `BagError`."""
    try:
        yield
    except Exception as error:  # damaged bytes make the library raise anything at all
        raise BagError(f"{what}: {str(error) or 'unexpected end'} ({type(error).__name__})") from error


class Bag:
    """A rosbag2 folder, or one of its storage files, open for reading.

    Messages and files compressed with zstd are read as well. Close it, or use it in a `with`.

    Raises:
        BagError: not there, damaged, a storage that is not known, or rosbags is not installed.
    """

    def __init__(self, path: Path | str) -> None:
        try:
            from rosbags.rosbag2 import Reader
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise BagError(f"bags are read with rosbags: pip install rosbags ({error})") from error
        self.path = Path(path)
        if not self.path.exists():
            raise BagError(f"{self.path} does not exist; expected: a rosbag2 folder, or a .db3 or .mcap file")
        if self.path.is_dir() and not (self.path / METADATA).is_file():
            files = sorted(file.name for file in self.path.iterdir() if file.name.endswith(STORAGE_ENDS))
            hint = f": was the recording cut off? Run `ros2 bag reindex`, or open {files[0]} itself" if files else ""
            raise BagError(f"{self.path} is no bag, it has no {METADATA}{hint}")
        self._types = get_typestore(Stores.LATEST)
        with reported(f"{self.path} cannot be read"):
            self._reader = Reader(self.path)
            self._reader.open()
            found = [Topic(each.topic, each.msgtype, each.msgcount) for each in self._reader.connections]
        counts = {(name, kind): sum(t.count for t in found if t[:2] == (name, kind)) for name, kind, _ in found}
        self.topics = tuple(Topic(*key, count) for key, count in sorted(counts.items()))

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Frees the files."""
        if self._reader.is_open:
            self._reader.close()

    @property
    def image_topics(self) -> tuple[Topic, ...]:
        """The topics of raw and compressed images."""
        return tuple(topic for topic in self.topics if topic.type in IMAGE_TYPES)

    def cameras(self, rgb: str = "", thermal: str = "") -> tuple[str, str]:
        """The topics of the RGB and of the thermal camera.

        Args:
            rgb: its name; "": the only one whose name says RGB, else the only one that does not say what it is.
            thermal: its name; "": the only one whose name says thermal, infrared or IR.

        Raises:
            BagError: an empty bag, no such image topic, none or several that it could be; lists the image topics.
        """
        if not any(topic.count for topic in self.topics):
            raise BagError(f"{self.path} holds no message")
        topics = self.image_topics
        listed = ", ".join(f"{name} ({kind}, {count})" for name, kind, count in topics)
        listed = f"its image topics: {listed}" if listed else f"it has no image topic among {len(self.topics)} topics"
        given = (rgb, thermal)
        recorded = _one_per_camera([topic.name for topic in topics if topic.count and topic.name not in given])
        chosen = []
        for modality, name in zip(MODALITIES, given, strict=True):
            if name and name not in {topic.name for topic in topics}:
                raise BagError(f"{self.path} has no image topic {name!r} for {modality}; {listed}")
            names = [name] if name else _likely(recorded, modality)
            if len(names) != 1:
                found = "several topics could be" if names else "no topic is recorded that looks like"
                raise BagError(f"{self.path}: {found} the {modality} camera: name it (--{modality}); {listed}")
            chosen += names
        if chosen[0] == chosen[1]:
            raise BagError(f"{self.path}: {chosen[0]} cannot be both cameras; {listed}")
        return chosen[0], chosen[1]

    def messages(self, topics: Sequence[str], start_ns: int | None = None) -> Iterator[Recorded]:
        """The image messages of some topics in the order in which they were received.

        Args:
            topics: names of image topics.
            start_ns: receive time of the first ones; None: from the beginning.

        Raises:
            BagError: the bag is damaged; says after how many messages.
        """
        connections = [c for c in self._reader.connections if c.topic in topics and c.msgtype in IMAGE_TYPES]
        stream = self._reader.messages(connections, start=start_ns) if connections else iter(())
        latest: dict[str, Key] = {}
        count = 0
        while True:
            with reported(f"{self.path} is damaged behind {count} images"):
                if (found := next(stream, None)) is None:
                    return
                connection, received_ns, data = found
                message = self._types.deserialize_cdr(data, connection.msgtype)
            before = latest.get(connection.topic)
            number = before.number + 1 if before is not None and before.received_ns == received_ns else 0
            latest[connection.topic] = Key(connection.topic, received_ns, number)
            count += 1
            yield Recorded(latest[connection.topic], message)


def _one_per_camera(names: Sequence[str]) -> list[str]:
    """The topics without those that show the images of another one, only compressed."""
    chosen: dict[str, str] = {}
    for name in sorted(names):  # the raw one comes first
        chosen.setdefault(_TRANSPORT.sub("", name), name)
    return list(chosen.values())


def _likely(names: Sequence[str], modality: str) -> list[str]:
    """The topics that may be of a camera, by the last telling word of their names."""
    words = {name: re.findall("[a-z]+", name.lower()) for name in names}
    kinds = {name: [_MODALITY_OF[word] for word in said if word in _MODALITY_OF] for name, said in words.items()}
    telling = [name for name, said in kinds.items() if said and said[-1] == modality]
    if telling or modality != "rgb":
        return telling
    return [name for name, said in kinds.items() if not said and not _OTHER & set(words[name])]


def pairs(
    bag: Bag,
    cameras: tuple[str, str],
    pairing: NearestPairing,
    item: Callable[[Recorded], Any] = lambda recorded: recorded.message,
) -> Iterator[Pair]:
    """The pairs that the node's pairing makes of a bag, images arriving as they were received.

    Args:
        cameras: names of the RGB and the thermal topic.
        pairing: without a past.
        item: what a pair holds of each message.

    Raises:
        BagError: the bag is damaged.
    """
    for recorded in bag.messages(cameras):
        stream = cameras.index(recorded.key.topic)
        stamp_ns = to_ns(recorded.message.header.stamp)
        yield from pairing.push(stream, stamp_ns, recorded.key.received_ns, item(recorded))


def why_no_pairs(bag: Bag, cameras: tuple[str, str], pairing: NearestPairing) -> BagError:
    """The error for a bag of which a pairing, all through, has made no pair."""
    text = f"{bag.path} gives no pair"
    silent = [topic for topic, count in zip(cameras, pairing.received, strict=True) if not count]
    unset = [
        topic
        for topic, count, dropped in zip(cameras, pairing.received, pairing.dropped, strict=True)
        if count and count == dropped[Reason.STAMP_UNSET]
    ]
    if silent:
        return BagError(f"{text}: no image on {' and '.join(silent)}")
    if unset:
        return BagError(f"{text}: {causes.unset(unset)}")
    return BagError(f"{text}: {causes.no_pairs(pairing.nearest_offset_ns, pairing.slop_ns)}")


class BagSequence:
    """A bag as a `Sequence`: frame `i` is the `i`-th pair that the node's pairing makes of it, with its RGB stamp.

    Not for several threads at a time. Going back is as cheap as going on where the bag has an index (sqlite3, and
    MCAP with chunks).

    Args:
        path: of the bag.
        rgb, thermal: topics, see `Bag.cameras`.
        settings: of the pairing.
        boxes: (n, 4) xywh in RGB pixels of the first n pairs; None: not known.

    Raises:
        BagError: the bag cannot be read, has no pair, or fewer pairs than boxes.
    """

    def __init__(
        self,
        path: Path | str,
        rgb: str = "",
        thermal: str = "",
        settings: PairingSettings | None = None,
        boxes: Boxes | None = None,
    ) -> None:
        self._bag = Bag(path)
        self._cameras = self._bag.cameras(rgb, thermal)
        pairing = (settings or PairingSettings()).start()
        self._pairs = list(pairs(self._bag, self._cameras, pairing, lambda recorded: recorded.key))
        if not self._pairs:
            raise why_no_pairs(self._bag, self._cameras, pairing)
        self.name = self._bag.path.resolve().name.removesuffix(".db3").removesuffix(".mcap")
        self.first_frame = 0
        self.boxes = boxes
        self.truths = (boxes, None)
        self.annotated = np.arange(0 if boxes is None else len(boxes))
        if boxes is not None and len(boxes) > len(self):
            raise BagError(f"{self._bag.path} gives {len(self)} pairs, but there are boxes for {len(boxes)}")
        steps = np.diff([pair.rgb_stamp_ns for pair in self._pairs])
        self.rate = round(1e9 / float(np.median(steps[steps > 0])), 3) if (steps > 0).any() else DEFAULT_RATE
        received = [min(key.received_ns for key in pair.items) for pair in self._pairs]
        self._starts_ns = np.minimum.accumulate(received[::-1])[::-1]  # no later pair holds an earlier message
        self._last_use = {key: number for number, pair in enumerate(self._pairs) for key in pair.items}
        self._stream: Iterator[RgbtFrame | ImageError] = iter(())
        self._next = -1
        self._latest: tuple[int, RgbtFrame | ImageError] | None = None

    def __len__(self) -> int:
        return len(self._pairs)

    def frame(self, i: int) -> RgbtFrame:
        """Frame `i`, stamped as its RGB image."""
        if not 0 <= i < len(self):
            raise IndexError(f"frame {i} of {self.name}, whose frames are 0 to {len(self) - 1}")
        if self._latest is None or self._latest[0] != i:
            if i != self._next:
                self._stream = self._frames_from(i)
            self._latest, self._next = (i, next(self._stream)), i + 1
        found = self._latest[1]
        if isinstance(found, ImageError):
            raise SequenceError(f"frame {i} of {self._bag.path}: {found}") from found
        return found

    def _frames_from(self, number: int) -> Iterator[RgbtFrame | ImageError]:
        """Frame `number` and those behind it; the reason in place of one that does not decode."""
        held: dict[Key, Any] = {}
        for recorded in self._bag.messages(self._cameras, int(self._starts_ns[number])):
            if self._last_use.get(recorded.key, -1) >= number:
                held[recorded.key] = recorded.message
            while number < len(self._pairs) and held.keys() >= set(self._pairs[number].items):
                pair = self._pairs[number]
                try:
                    yield decode_pair(replace(pair, items=tuple(held[key] for key in pair.items)))
                except ImageError as error:
                    yield error
                number += 1
                held = {key: message for key, message in held.items() if self._last_use[key] >= number}
        raise BagError(f"{self._bag.path} ends before its pair {number}: it changes while it is read")
