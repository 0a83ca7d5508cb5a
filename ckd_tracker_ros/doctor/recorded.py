"""Facts about a recorded bag, without ROS."""

from __future__ import annotations

from pathlib import Path

from ckd_tracker_ros.causes import StreamFacts
from ckd_tracker_ros.doctor.facts import TYPES, Camera, Settings, SetUp, other_of, transport_of
from ckd_tracker_ros.doctor.watch import Watch
from ckd_tracker_ros.frame import MODALITIES
from ckd_tracker_ros.sequences.bags import IMAGE_TYPES, Bag

SECONDS = 30.0


def look(
    path: Path | str, topics: tuple[str, str] = ("", ""), seconds: float = 0.0, settings: Settings | None = None
) -> SetUp:
    """Reads the first seconds of a bag, by the times of recording.

    Args:
        topics: of RGB and thermal images; "": by their names, see `Bag.cameras`.
        seconds: how much is read; 0: `SECONDS`.

    Raises:
        BagError: it cannot be read, or a topic that is not named cannot be guessed.
    """
    with Bag(path) as bag:
        if all(topics):
            names = topics
        else:
            known = tuple(name if name in {topic.name for topic in bag.image_topics} else "" for name in topics)
            guessed = bag.cameras(*known)
            names = tuple(name or guess for name, guess in zip(topics, guessed, strict=True))
        seen = {name: Watch() for name in names}
        first_ns = None
        for recorded in bag.messages([*seen]):
            first_ns = recorded.key.received_ns if first_ns is None else first_ns
            if recorded.key.received_ns - first_ns > (seconds or SECONDS) * 1e9:
                break
            seen[recorded.key.topic].add(recorded.message, recorded.key.received_ns)
        cameras = tuple(_camera(bag, *each, seen) for each in zip(MODALITIES, names, strict=True))
        topics_with_images = tuple(topic.name for topic in bag.image_topics if topic.count)
    return SetUp(cameras, settings or Settings(), topics_with_images)


def _camera(bag: Bag, modality: str, name: str, seen: dict[str, Watch]) -> Camera:
    watch, other = seen[name], other_of(name)
    kinds = tuple((topic.type, "reliable") for topic in bag.topics if topic.name == name and topic.count)
    found = any(topic.name == other and topic.count and topic.type in IMAGE_TYPES for topic in bag.topics)
    stream = StreamFacts(
        modality, name, TYPES[transport_of(name)], kinds, "reliable", len(watch), watch.unset, other * found
    )
    return Camera(stream, watch)
