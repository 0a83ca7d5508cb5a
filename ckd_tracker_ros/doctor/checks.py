"""Topics, quality of service, rates, stamps and losses: facts in, findings out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros import causes
from ckd_tracker_ros.causes import Finding
from ckd_tracker_ros.doctor.facts import CLOCKS_AGREE_S, COMPRESSED, Camera, SetUp
from ckd_tracker_ros.pairing import PairingSettings

LOSS = 0.05
PAUSE_S = 0.3
"""Longer gaps of a camera that otherwise loses little are pauses, as a thermal shutter makes them."""
RATES_DIFFER = 1.3
PAIRED = 0.9
"""Share of the images of the slower camera that should find a partner."""
LARGE_BYTES = 500_000
"""Images from here on do not fit into Fast DDS's own shared memory; see config/fastdds.xml."""
DELAY_S = 0.015
"""Delays below that change no pair at 30 Hz."""
BUSY = 0.8
_SLOPS = (0.03, 0.04, 0.05, 0.075, 0.1)


def silence(setup: SetUp) -> Iterator[Finding]:
    """Why there is no pair at all, in the words of the node, with what only the doctor sees."""
    lossy = [camera.stream.topic for camera in setup.cameras if camera.seen.lost]
    for finding in causes.find(setup.why_nothing):
        if finding.cause == "idle_publisher" and finding.what.split()[0] in lossy:
            continue  # it is not idle, see `losses`
        if finding.cause != "no_publisher":
            yield finding
            continue
        there = f"image topics here: {', '.join(setup.image_topics)}" if setup.image_topics else "no image topic here"
        if setup.graph is not None and not setup.image_topics:
            there += f"; ROS_DOMAIN_ID is {setup.graph.domain}: is that the cameras'?"
        yield replace(finding, do=f"{finding.do} ({there})")


def publishers(setup: SetUp) -> Iterator[Finding]:
    """Several cameras on one topic; nodes whose subscriptions cannot match."""
    for camera in setup.cameras:
        topic = camera.stream.topic
        if setup.graph is not None and len(camera.nodes) > 1:
            what = f"{len(camera.nodes)} publishers on {topic}: {', '.join(camera.nodes)}"
            yield Finding("publishers", "wrong", what, "stop one, or remap it: their images arrive as one camera's")
        if camera.deaf:
            what = f"{', '.join(camera.deaf)} asks for reliable on {topic}, whose publisher is best_effort: no image"
            yield Finding("qos", "blocks", what, "set qos.reliability to auto or best_effort there")
        if setup.graph is None and topic.endswith(COMPRESSED):
            name = f"{camera.stream.modality}.transport"
            yield Finding("compressed", "remark", f"{topic} is compressed", f"for the node set {name} to compressed")


def stamps(setup: SetUp) -> Iterator[Finding]:
    """Unset, going back, from another clock than the other camera's or this computer's."""
    for camera in setup.cameras:
        seen, topic = camera.seen, camera.stream.topic
        if 0 < seen.unset < len(seen):
            what = f"{seen.unset} of {len(seen)} stamps on {topic} are not set (0)"
            yield Finding("stamps_unset", "wrong", what, "the driver has to stamp every image")
        steps = np.diff(camera.stamps_s)
        if back := int((steps < 0).sum()):
            what = f"stamps on {topic} go back {back} times, by up to {-steps.min():.3f} s"
            do = "is a recording looped, does something set the clock, do two cameras share the topic? Targets are kept"
            yield Finding("stamps_back", "wrong", what, do)
        if same := int((steps == 0).sum()):
            what = f"{same} of {len(seen)} stamps on {topic} repeat the one before"
            yield Finding("stamps_repeat", "wrong", what, "the driver has to stamp every image when it is taken")
    yield from _clocks(setup)


def _clocks(setup: SetUp) -> Iterator[Finding]:
    rgb, thermal = (camera.age_s for camera in setup.cameras)
    if abs(rgb - thermal) >= causes.CLOCKS_DIFFER_NS / 1e9:  # no with NaN
        if setup.pairing.pairs or abs(setup.pairing.nearest_offset_ns or 0) < causes.CLOCKS_DIFFER_NS:
            yield causes.clocks_differ((rgb - thermal) * 1e9)
        return
    ages = [age for age in (rgb, thermal) if math.isfinite(age)]
    if not ages or abs(ages[0]) <= CLOCKS_AGREE_S:
        return
    found = causes.clock_off(ages[0])
    if setup.graph is not None and math.isfinite(setup.graph.sim_offset_s):
        if abs(ages[0] + setup.graph.sim_offset_s) <= CLOCKS_AGREE_S:
            found = replace(found, do="set use_sim_time to true: /clock is there and agrees with the stamps")
    elif setup.graph is not None:
        found = replace(
            found,
            do="play a recording with --clock and set use_sim_time to true; of living cameras synchronise the "
            "computers' clocks (chrony, PTP)",
        )
    else:
        found = replace(found, what=found.what.replace("this node's clock, so latency is NaN", "the recorder's clock"))
    yield found


def rates(setup: SetUp) -> Iterator[Finding]:
    """Cameras of different rates, and images without a partner."""
    settings, now = setup.settings.pairing, setup.pairing
    periods = [camera.period_s for camera in setup.cameras]
    slower = min(len(camera.stamped) for camera in setup.cameras)
    if not now.pairs or not slower or not all(map(math.isfinite, periods)):
        return
    rgb_s, thermal_s = periods
    if thermal_s > RATES_DIFFER * rgb_s and not settings.reuse:
        # Until the next thermal image comes the last one serves, at most a period later.
        better = replace(settings, reuse=True, slop=max(settings.slop, math.ceil(1100 * thermal_s) / 1000))
        then = setup.paired(better).pairs
        if then > 1.1 * now.pairs:
            what = f"thermal comes at {1 / thermal_s:.1f} Hz beside RGB at {1 / rgb_s:.1f} Hz: {now.pairs} pairs"
            do = f"set sync.reuse to true and sync.slop to {better.slop:g}, which gives {then}"
            yield Finding("rates", "wrong", what, do)
            return
    wanted = len(setup.cameras[0].stamped) if settings.reuse else slower
    if now.pairs < PAIRED * wanted:
        what = f"only {now.pairs} of {wanted} images find a partner within sync.slop ({settings.slop:g} s)"
        yield Finding("few_pairs", "wrong", what, _more_pairs(setup, settings, wanted))


def _more_pairs(setup: SetUp, settings: PairingSettings, wanted: int) -> str:
    for slop in _SLOPS:
        better = replace(settings, slop=slop)
        if slop > settings.slop and (pairs := setup.paired(better).pairs) >= PAIRED * wanted:
            return f"set sync.slop to {slop:g}, which gives {pairs}"
    return "trigger both cameras together, or look at what loses images of one of them"


def losses(setup: SetUp) -> Iterator[Finding]:
    """Images that were sent and did not come, and how they travel."""
    for camera in setup.cameras:
        missing, pauses = losses_of(camera)
        received, topic = len(camera.seen), camera.stream.topic
        size = f"{camera.seen.bytes / 1e6:.1f} MB each" if received else "none came"
        best_effort = any(reliability == "best_effort" for _, reliability in camera.stream.publishers)
        if missing > LOSS * (received + missing):
            what = f"{missing} of {received + missing} images on {topic} are lost ({size})"
            yield Finding("losses", "wrong" if received else "blocks", what, _why_lost(setup, camera))
        elif setup.graph is not None and _default_transport(setup, camera) and best_effort:
            what = f"best-effort images of {size} on {topic}, and no Fast DDS profile in this shell"
            do = "set FASTDDS_DEFAULT_PROFILES_FILE to config/fastdds.xml, for the cameras too: see docs/installing.md"
            yield Finding("dds_profile", "remark", what, do)
        if len(pauses):
            what = f"{topic} paused {len(pauses)} times, for up to {pauses.max():.1f} s"
            do = "a thermal camera's shutter does that" if camera.stream.modality == "thermal" else "look at the camera"
            yield Finding("pauses", "remark", what, do)


def losses_of(camera: Camera) -> tuple[int, NDArray[np.float64]]:
    """Images of a camera that were lost, by its stamps or by what the middleware knows, and its pauses."""
    missing, pauses = lost(camera.stamps_s, camera.period_s)
    return max(missing, camera.seen.lost), pauses


def lost(times: NDArray[np.float64], period: float) -> tuple[int, NDArray[np.float64]]:
    """Images that are missing between (n,) stamps, and the pauses (k,) between others, seconds."""
    steps = np.diff(times)
    steps = steps[(steps > 0) & (steps < CLOCKS_AGREE_S)]  # others: a clock was set
    if not len(steps) or not math.isfinite(period):
        return 0, np.empty(0)
    paused = steps > max(PAUSE_S, 3 * period)
    if paused.sum() > LOSS * len(steps):
        paused[:] = False  # too many for a shutter
    rest = steps[~paused]
    return max(0, round(rest.sum() / period) - len(rest)), steps[paused]  # of the sum: jitter is no loss


def _default_transport(setup: SetUp, camera: Camera) -> bool:
    graph = setup.graph
    large = camera.seen.bytes > LARGE_BYTES or not camera.seen.bytes  # of which none comes may be of any size
    return large and graph is not None and "fastrtps" in graph.middleware and not graph.profile


def _why_lost(setup: SetUp, camera: Camera) -> str:
    if setup.graph is None:
        return "the camera or the recorder dropped them: record on a faster disk, or compressed"
    if setup.graph.busy > BUSY:
        return "this computer was too busy to receive them: look again with less running"
    if _default_transport(setup, camera):
        return "set FASTDDS_DEFAULT_PROFILES_FILE (to Jazzy FASTRTPS_...) to config/fastdds.xml, for the cameras first"
    return "does the camera's process have config/fastdds.xml too? Else look at camera, USB and network"


def delay(setup: SetUp) -> Iterator[Finding]:
    """A constant delay between the cameras, from the images' motion."""
    found = setup.delay
    if found is None or not found.sure:
        return
    given = setup.settings.pairing.thermal_delay
    if abs(found.seconds - given) > DELAY_S + found.spread / 2:
        side = "later" if found.seconds > 0 else "earlier"
        what = (
            f"by the images' motion thermal stamps are {abs(found.seconds):.3f} s {side} than RGB stamps of the same "
            f"moment (parts of the recording agree within {found.spread:.3f} s, fit {found.fit:.2f} of 1), and "
            f"sync.thermal_delay is {given:g}"
        )
        yield Finding("thermal_delay", "wrong", what, f"set sync.thermal_delay to {found.seconds:.3f}")


def machine(setup: SetUp) -> Iterator[Finding]:
    """Model, device, precision."""
    if setup.machine is not None and setup.machine.problem is not None:
        yield setup.machine.problem
