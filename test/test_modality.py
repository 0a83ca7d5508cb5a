"""Cameras that cannot be believed are left out, everything else is left alone, and they come back by themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.modality import ModalitySettings, Verdict, Watch, check, problem

PERIOD = 33_333_333
OK = Verdict.OK


def scene(number: int, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    noise = np.random.default_rng(number).normal(0, 2, (120, 160))
    pixels = 90 + 40 * np.sin(np.arange(160) / 9) + noise
    pixels = (pixels * (20 if dtype == np.uint16 else 1)).astype(dtype)
    return pixels if channels == 1 else np.repeat(pixels[..., None], channels, -1)


def noise(number: int, level: float, sigma: float, dtype: type = np.uint8) -> np.ndarray:
    return np.clip(np.random.default_rng(number).normal(level, sigma, (120, 160)), 0, None).round().astype(dtype)


def frame(number: int, rgb: np.ndarray | None, thermal: np.ndarray | None) -> RgbtFrame:
    images = (rgb if rgb is None else Image(rgb), thermal if thermal is None else Image(thermal, "mono"))
    return RgbtFrame(images, 10**18 + number * PERIOD)


def watch(frames: list[RgbtFrame], settings: ModalitySettings | None = None) -> tuple[list, list]:
    past, verdicts, present = Watch(), [], []
    for each in frames:
        past, seen, verdict = check(past, each, settings or ModalitySettings())
        assert any(seen.present)
        verdicts.append(verdict)
        present.append(seen.present)
    return verdicts, present


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    ("first", "noticed"),
    [
        (20, 22),  # it has changed in every frame: two in which it does not are more than ever
        (5, 15),  # nobody knows yet how often it changes: 0.3 s are 9 frames, and it has to be longer
    ],
)
def test_frozen_camera_is_left_out_and_returns_at_once(place, first, noticed):
    frames = []
    for n in range(70):
        images = [scene(n), scene(n + 1000, 1)]
        if first <= n < 50:
            images[place] = scene(first, 3 if place == 0 else 1)
        frames.append(frame(n, *images))
    verdicts, present = watch(frames)
    frozen = [n for n, verdict in enumerate(verdicts) if verdict[place] is Verdict.FROZEN]
    assert frozen == list(range(noticed, 50))
    assert [n for n, there in enumerate(present) if not there[place]] == frozen
    assert all(verdict[1 - place] is OK for verdict in verdicts)


def test_a_camera_that_often_stands_still_is_given_the_whole_timeout():
    still = {n for n in range(20, 90) if n % 15 >= 8}  # 0.27 s of every half second
    frames = [frame(n, scene(n - n % 15 + 7 if n in still else n), scene(n + 1000, 1)) for n in range(120)]
    assert {verdict[0] for verdict in watch(frames)[0][:30]} == {OK, Verdict.FROZEN}, "once"
    assert {verdict[0] for verdict in watch(frames)[0][30:]} == {OK}


def test_repeating_driver_of_a_slow_camera_and_a_still_scene_are_not_frozen():
    slow = [frame(n, scene(n), scene(n // 4, 1)) for n in range(60)]
    still = [frame(n, scene(0), scene(1, 1)) for n in range(60)]
    for frames in (slow, still):
        assert set(watch(frames)[0]) == {(OK, OK)}


def test_a_frame_says_whether_an_image_that_is_believed_is_that_of_the_frame_before():
    def repeated(thermal: Iterable[int | None]) -> str:
        past, seen = Watch(), ""
        for n, shown in enumerate(thermal):
            now = frame(n, scene(n), None if shown is None else scene(shown, 1))
            past, now, _ = check(past, now, ModalitySettings())
            seen += str(int(now.repeated))
        return seen

    assert repeated([0, 0, 1, None, 1, 2]) == "010010"
    assert repeated([*range(12), *[11] * 5, 12]) == "0" * 12 + "10000" + "0", "what is known to be frozen is left out"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda n: noise(n, 1, 1), Verdict.BLACK),
        (lambda n: np.full((120, 160), 255, np.uint8), Verdict.SATURATED),
        (lambda n: noise(n, 60, 1.5), Verdict.COVERED),
        (lambda n: noise(n, 8000, 12, np.uint16), Verdict.COVERED),
    ],
)
def test_images_that_hold_nothing(make, expected):
    frames = [frame(n, scene(n), make(n) if 5 <= n < 40 else scene(n, 1, make(n).dtype)) for n in range(50)]
    verdicts, present = watch(frames)
    assert all(verdicts[n] == (OK, expected) and present[n] == (True, False) for n in range(16, 40))
    assert all(verdicts[n] == (OK, OK) for n in (*range(5), *range(40, 50)))


def with_patch(pixels: np.ndarray, value: int) -> np.ndarray:
    pixels[50:59, 71:80] = value
    return pixels


@pytest.mark.parametrize(
    "make",
    [
        lambda n: with_patch(noise(n, 1, 1), 60),  # a light in the night
        lambda n: with_patch(noise(n, 200, 1), 180),  # a small target in the sky
        lambda n: with_patch(noise(n, 8000, 12, np.uint16), 8200),
        lambda n: noise(n, 100, 1) + (np.arange(120) // 12).astype(np.uint8)[:, None],  # fog
        lambda n: noise(n, 8000, 12, np.uint16) + np.arange(160).astype(np.uint16) // 2,  # low contrast
    ],
)
def test_poor_images_are_still_believed(make):
    assert set(watch([frame(n, scene(n), make(n)) for n in range(40)])[0]) == {(OK, OK)}


def test_the_last_image_is_never_taken_away():
    black = np.zeros((120, 160, 3), np.uint8)
    frames = [frame(n, black if n >= 5 else scene(n), black[..., 0] if n >= 15 else scene(n, 1)) for n in range(40)]
    verdicts, present = watch(frames)
    assert verdicts[30] == (Verdict.BLACK, Verdict.BLACK)
    assert present[30] == (False, True)  # which was believed last
    assert watch([frame(0, black, black[..., 0])])[1] == [(True, True)]


def test_missing_rgb_keeps_its_pixels():
    past, _, _ = check(Watch(), frame(0, scene(0), scene(1, 1)[:60, :80]), ModalitySettings())
    _, seen, verdicts = check(past, frame(1, None, scene(2, 1)[:60, :80]), ModalitySettings())
    assert verdicts == (Verdict.MISSING, OK)
    assert seen.size == (160, 120)


@pytest.mark.parametrize("spoiled", [np.zeros((120, 160, 3), np.uint8), scene(0), None])
def test_wait_gives_nothing_until_both_can_be_believed(spoiled):
    past, given, settings = Watch(), [], ModalitySettings(timeout=0.1, on_missing="wait")
    for n in range(30):
        past, seen, verdicts = check(past, frame(n, spoiled if 10 <= n < 20 else scene(n), scene(n + 99, 1)), settings)
        given.append(seen is not None)
        assert bool(problem(verdicts)) != given[-1]
        assert seen is None or seen.present == (True, True)
    assert given[:10] == given[20:] == [True] * 10 and not any(given[14:20])


def test_a_looped_recording_is_not_frozen():
    frames = [frame(n % 20, scene(n), scene(n + 1, 1)) for n in range(60)]
    assert set(watch(frames)[0]) == {(OK, OK)}


def test_noisy_black_colours_are_black_and_one_coloured_light_is_not():
    noisy = [np.stack([noise(3 * n + c, 1.5, 1) for c in range(3)], -1) for n in range(20)]
    assert {verdict[0] for verdict in watch([frame(n, rgb, scene(n, 1)) for n, rgb in enumerate(noisy)])[0]} == {
        Verdict.BLACK
    }
    for rgb in noisy:
        with_patch(rgb[..., 2], 60)
    assert set(watch([frame(n, rgb, scene(n, 1)) for n, rgb in enumerate(noisy)])[0]) == {(OK, OK)}


@pytest.mark.parametrize("seconds", [100, -100])
def test_a_clock_that_is_set_freezes_nothing(seconds):
    """The thermal driver repeats its images, and has just done so when the clocks jump."""
    frames = [frame(n, scene(n), scene(n // 4, 1)) for n in range(60)]
    frames = [replace(each, stamp_ns=each.stamp_ns + (n > 30) * seconds * 10**9) for n, each in enumerate(frames)]
    assert set(watch(frames)[0]) == {(OK, OK)}


@pytest.mark.parametrize("wrong", [{"timeout": 0.0}, {"timeout": float("nan")}, {"on_missing": "hope"}])
def test_settings_name_value_and_allowed(wrong):
    with pytest.raises(ValueError, match=r"modality\.\w+ is .*; allowed: "):
        ModalitySettings(**wrong)
