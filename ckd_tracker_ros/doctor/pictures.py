"""What the images show: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

import numpy as np

from ckd_tracker_ros.causes import Finding
from ckd_tracker_ros.doctor.facts import Camera, SetUp
from ckd_tracker_ros.doctor.watch import Watch
from ckd_tracker_ros.registration import RegistrationError

MOST = 0.9
"""Share of the images that something has to be true of to be said of the camera."""
REPEATS = 0.2
DARK, BRIGHT = 16, 240
FLAT = {"uint8": 3.0, "uint16": 1.0, "float32": 0.01}
"""A span of values, from 1st to 99th percentile, that shows nothing: less than any sensor's noise."""
_RIM = 0.1  # share of the picture on each side where drivers write numbers that change


def usable(setup: SetUp) -> Iterator[Finding]:
    """Images that do not decode or change their size."""
    for camera in setup.cameras:
        seen, topic = camera.seen, camera.stream.topic
        for problem, count in seen.problems.most_common(1):
            level = "wrong" if seen.looks else "blocks"
            do = "set the driver to mono8, mono16, rgb8 or bgr8"
            yield Finding("undecodable", level, f"{count} of {len(seen)} images on {topic}: {problem}", do)
        if len(seen.sizes) > 1:
            sizes = ", ".join(f"{width}x{height} ({count})" for (width, height), count in seen.sizes.most_common(3))
            what = f"images on {topic} change their size: {sizes}"
            yield Finding(
                "sizes", "wrong", what, "do two cameras share the topic, or does something set the camera anew?"
            )


def alignment(setup: SetUp) -> Iterator[Finding]:
    """Whether the images can be laid over each other."""
    sizes = [seen.sizes.most_common(1)[0][0] for seen in (camera.seen for camera in setup.cameras) if seen.sizes]
    if len(sizes) < 2:
        return
    try:
        setup.settings.registration.matrix("thermal", *sizes)
    except RegistrationError as error:
        do = "run `ckd-tracker calibrate`, which finds the matrix"
        yield Finding("aspect", "blocks", str(error), do)


def content(setup: SetUp) -> Iterator[Finding]:
    """Black, white, empty, frozen and repeated images."""
    for camera in setup.cameras:
        name, topic, seen = camera.stream.modality, camera.stream.topic, camera.seen
        if not seen.looks:
            continue
        if found := _empty(seen):
            what = f"{name} images on {topic} are {found}"
            yield Finding("empty_images", "wrong", what, "is the lens covered, the exposure wrong, is it night?")
            continue
        yield from _repeats(camera)


def _empty(seen: Watch) -> str:
    """black, white or without content, where most images are; else ""."""
    looks = seen.looks
    flat = np.mean([look.high - look.low <= FLAT.get(look.dtype, 0.0) for look in looks])
    eight = [look for look in looks if look.dtype == "uint8"]
    for word, dull in (("black", lambda look: look.high < DARK), ("white", lambda look: look.low > BRIGHT)):
        if eight and sum(map(dull, eight)) >= MOST * len(looks):
            return word
    return f"empty, every pixel about {looks[-1].low:g}" if flat >= MOST else ""


def _repeats(camera: Camera) -> Iterator[Finding]:
    name, looks = camera.stream.modality, camera.seen.looks
    prints = np.array([_print(look.thumbnail) for look in looks])
    same = prints[1:] == prints[:-1]
    if len(same) < 5:
        return
    share = float(same.mean())
    if share >= MOST:
        what = f"{name} images on {camera.stream.topic} are frozen: {int(same.sum()) + 1} of {len(looks)} are the same"
        yield Finding("frozen", "wrong", what, "restart the camera or its driver: stamps go on, the picture does not")
    elif share >= REPEATS:
        rate = (1 - share) / camera.period_s
        what = f"{int(same.sum())} of {len(looks)} {name} images repeat the one before: about {rate:.1f} Hz are real"
        do = "set the driver to the sensor's own rate" + ", and sync.reuse to true" * (name == "thermal")
        yield Finding("repeats", "wrong", what, do)


def _print(thumbnail: np.ndarray) -> int:
    rows, columns = (max(1, round(_RIM * length)) for length in thumbnail.shape)
    return crc32(np.ascontiguousarray(thumbnail[rows:-rows, columns:-columns]))


def kinds(setup: SetUp) -> Iterator[Finding]:
    """Thermal images with a palette or of 8 bits; cameras that were swapped."""
    rgb, thermal = (camera.seen.looks for camera in setup.cameras)
    topic = setup.cameras[1].stream.topic
    if thermal and sum(look.colourful for look in thermal) >= MOST * len(thermal):
        if rgb and all(look.dtype != "uint8" for look in rgb):
            what = "RGB images are of more than 8 bits and thermal ones are colourful"
            yield Finding("swapped", "wrong", what, "swap the two topics")
            return
        what = f"thermal images on {topic} are coloured by a palette"
        do = "set the camera to grey (white hot), 16 bits if it can: the network was trained on grey"
        yield Finding("palette", "wrong", what, do)
    elif thermal and all(look.dtype == "uint8" for look in thermal):
        what = f"thermal images on {topic} have 8 bits"
        do = "16 bits (mono16) keep what the camera's own gain control hides, where it can send them"
        yield Finding("eight_bits", "remark", what, do)
