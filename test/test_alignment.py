"""Calibration from images: known homographies are found, images that say nothing are refused."""

from __future__ import annotations

import functools
from pathlib import Path

import bag_files
import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from typer.testing import CliRunner

from ckd_tracker_ros import alignment, cli, overlay
from ckd_tracker_ros.alignment import AlignmentError
from ckd_tracker_ros.alignment.blocks import MODELS, Matches, distances, fit
from ckd_tracker_ros.alignment.edges import field_of
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.parameters import read_yaml
from ckd_tracker_ros.registration import Registration, scaling
from ckd_tracker_ros.sequences import SequenceError, open_sequence
from ckd_tracker_ros.synthetic import Scene, SceneConfig

RGB = (640, 480)
LIMIT_PX = 2.0
PAIRS = 8
HALF = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
"""Pixels whose centres are whole numbers to those whose corners are: scenes count from corners."""


def move(scale: float, degrees: float, shift: tuple[float, float]) -> NDArray[np.float64]:
    """(3, 3) about the centre of the RGB image, which turns x to y for positive angles."""
    turn = cv2.getRotationMatrix2D(((RGB[0] - 1) / 2, (RGB[1] - 1) / 2), -degrees, scale)
    turn[:, 2] += shift
    return np.vstack([turn, [0, 0, 1]])


KNOWN = move(1.1, 5.0, (20.0, 0.0))


def square_pixels(thermal: tuple[int, int]) -> NDArray[np.float64]:
    """(3, 3) an image as wide as the RGB image, and centred on it."""
    zoom = RGB[0] / thermal[0]
    matrix = np.diag([zoom, zoom, 1.0])
    matrix[:2, 2] = (np.array(RGB) - 1) / 2 - zoom * (np.array(thermal) - 1) / 2
    return matrix


def scene(seed: int, matrix: NDArray, **config: object) -> Scene:
    """A scene whose thermal camera lies to its RGB camera as a (3, 3) matrix between centres of pixels says."""
    homography = tuple(map(tuple, HALF @ matrix @ np.linalg.inv(HALF)))
    return Scene(SceneConfig(frames=60, homography=homography, **config), seed)


def shown(sequence: object, count: int = PAIRS) -> list[RgbtFrame]:
    return [sequence.frame(int(i)) for i in np.linspace(0, len(sequence) - 1, count)]


@functools.cache
def aligned(seed: int) -> list[RgbtFrame]:
    return shown(scene(seed, np.eye(3)))


def error_px(matrix: NDArray, truth: NDArray) -> float:
    """RGB pixels between two homographies in the image's centre."""
    centre = (np.array([[RGB]], np.float64) - 1) / 2
    there = cv2.perspectiveTransform(centre, np.linalg.inv(truth))
    return float(np.linalg.norm(cv2.perspectiveTransform(there, matrix) - centre))


@pytest.mark.parametrize(
    ("seed", "truth", "config"),
    [
        (3, KNOWN, {}),
        (6, KNOWN, {"thermal_bits": 16}),
        (14, move(0.55, -12, (-50, 30)) @ square_pixels((384, 288)), {"thermal_size": (384, 288), "thermal_bits": 16}),
        (1, move(0.9, -4, (15, -10)) @ square_pixels((320, 256)), {"thermal_size": (320, 256)}),
    ],
    ids=["same size", "16 bits", "narrow field of view", "other aspect ratio"],
)
def test_a_known_homography_is_found(seed: int, truth: NDArray, config: dict) -> None:
    found = alignment.estimate(shown(scene(seed, truth, **config)))
    assert error_px(found.matrix, truth) < LIMIT_PX
    assert found.after > found.before + 0.05
    assert found.spread < 2 * LIMIT_PX and 0 < found.residual < 4


def test_a_real_recording_is_found_again_after_its_thermal_images_were_moved(shared: Path) -> None:
    pairs = shown(open_sequence(shared / "data" / "m3svd", "stairs_man"))
    moved = []
    for pair in pairs:
        rgb, thermal = pair.images
        pixels = cv2.warpPerspective(thermal.pixels, KNOWN, RGB, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        moved.append(RgbtFrame((rgb, Image(255 - pixels, "mono"))))  # and its contrast turned around
    assert error_px(alignment.estimate(moved).matrix, KNOWN) < LIMIT_PX


def exchanged(pairs: list[RgbtFrame], thermal: list[Image]) -> list[RgbtFrame]:
    return [RgbtFrame((pair.images[0], other)) for pair, other in zip(pairs, thermal, strict=True)]


def test_unrelated_images_are_refused() -> None:
    with pytest.raises(AlignmentError, match="too little.*blocks.*no matrix"):
        alignment.estimate(exchanged(aligned(30), [pair.images[1] for pair in aligned(31)]))


def test_noise_is_refused() -> None:
    rng = np.random.default_rng(0)
    noise = [Image(rng.integers(0, 255, (120, 160), np.uint8), "mono") for _ in range(4)]
    still = Image(rng.integers(0, 255, (120, 160, 3), np.uint8), "bgr")  # the same in every pair
    with pytest.raises(AlignmentError, match="too little"):
        alignment.estimate([RgbtFrame((still, each)) for each in noise])


@pytest.mark.parametrize(
    ("thermal", "said"),
    [
        ([Image(np.full((480, 640), 7300, np.uint16), "mono")] * PAIRS, "thermal images show nothing"),
        ([Image(np.zeros((24 * (i + 1), 90), np.uint8), "mono") for i in range(PAIRS)], "change their size: 90x24, 90"),
        ([Image(np.arange(900, dtype=np.uint8).reshape(30, 30), "mono")] * PAIRS, "30x30 are too small; from 48"),
    ],
    ids=["constant", "sizes", "tiny"],
)
def test_images_that_cannot_be_compared_are_named(thermal: list[Image], said: str) -> None:
    with pytest.raises(AlignmentError, match=said):
        alignment.estimate(exchanged(aligned(30), thermal))


def test_no_pair_and_unknown_models_are_refused() -> None:
    with pytest.raises(AlignmentError, match="no pair"):
        alignment.estimate([])
    with pytest.raises(ValueError, match="'rigid'; allowed: auto, similarity, affine, homography"):
        alignment.estimate(aligned(30), "rigid")


def test_edges_do_not_care_which_side_is_warm() -> None:
    picture = cv2.cvtColor(aligned(30)[0].images[0].pixels, cv2.COLOR_BGR2GRAY).astype(np.float32)
    np.testing.assert_allclose(field_of(picture), field_of(255 - picture), atol=1e-4)
    turned = field_of(np.ascontiguousarray(np.rot90(picture)))  # an edge across is one down: twice the angle, 180 more
    np.testing.assert_allclose(turned, -np.rot90(field_of(picture)), atol=2e-3)


@pytest.mark.parametrize("model", MODELS)
def test_models_are_laid_through_matches_a_third_of_which_is_wrong(model: str) -> None:
    rng = np.random.default_rng(1)
    truth = KNOWN.copy()
    if model != "similarity":
        truth[0, 1] += 0.03
    if model == "homography":
        truth[2, :2] = 1e-4, -5e-5
    points = rng.uniform(0, 400, (60, 2))
    found = cv2.perspectiveTransform(points[None], truth)[0]
    found[:20] += rng.uniform(10, 60, (20, 2))
    matches = Matches(found, points, np.arange(60) % 2 == 0)
    assert distances(fit(model, matches), matches)[20:].max() < 0.1
    assert fit(model, matches.only(np.arange(60) < 3)) is None


# ---- the command


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["calibrate", *map(str, arguments)])
    return result.exit_code, result.output


def write(folder: Path, pairs: list[RgbtFrame]) -> Path:
    for name, modality in (("visible", 0), ("infrared", 1)):
        (folder / name).mkdir(parents=True)
        for index, pair in enumerate(pairs):
            cv2.imwrite(str(folder / name / f"{index}.png"), pair.images[modality].pixels)
    return folder


def test_the_command_writes_what_the_node_reads_and_a_picture(tmp_path: Path) -> None:
    source = write(tmp_path / "räum lich", shown(scene(6, KNOWN)))
    code, output = run(source, "--pairs", PAIRS, "--out", tmp_path / "out")
    assert code == 0, output
    assert "similarity" in output and "RGB 640x480, thermal 640x480" in " ".join(output.split())
    text = (tmp_path / "out" / "registration.yaml").read_text(encoding="utf-8")
    nine = yaml.safe_load(text)["/**"]["ros__parameters"]["registration"]["thermal_to_rgb"]
    assert all(isinstance(value, float) for value in nine) and "räum lich" in text
    assert error_px(np.reshape(nine, (3, 3)), KNOWN) < LIMIT_PX
    registration = read_yaml(tmp_path / "out" / "registration.yaml").tracker_settings.registration
    assert registration == Registration(tuple(nine), (640, 480, 640, 480))
    assert f"--thermal-to-rgb {','.join(map(str, nine))}" in output
    picture = cv2.imread(str(tmp_path / "out" / "overlay.png"))
    assert picture.shape == (480, 1280, 3)
    assert np.abs(picture[:, :640].astype(int) - picture[:, 640:]).mean() > 3, "before and after look alike"


def test_the_command_writes_nothing_when_it_knows_nothing(tmp_path: Path) -> None:
    black = [Image(np.zeros((480, 640), np.uint8), "mono")] * PAIRS
    code, output = run(write(tmp_path / "night", exchanged(aligned(30), black)), "--out", tmp_path / "out")
    assert (code, (tmp_path / "out").exists()) == (1, False)
    assert output.startswith("error: the thermal images show nothing") and output.count("\n") == 1
    for arguments, said in ((("nowhere",), "nowhere"), ((tmp_path / "night", "--model", "rigid"), "allowed: auto")):
        code, output = run(*arguments, "--out", tmp_path / "out")
        assert code == 2 and said in output and not (tmp_path / "out").exists()


def test_images_that_line_up_already_are_said_to() -> None:
    still = alignment.Alignment(np.eye(3), "similarity", RGB, RGB, 8, 30, 20, 0.4, 0.3, 1.0, 0.3, 0.3)
    assert "nothing needs to be set" in alignment.as_text(still)[-1]
    apart = alignment.Alignment(KNOWN, "similarity", RGB, RGB, 8, 30, 20, 0.4, 0.3, 1.0, 0.1, 0.3)
    assert len(alignment.as_text(apart)) == 1 and apart.shift > 20
    half = alignment.Alignment(scaling((320, 240), RGB), "affine", RGB, (320, 240), 8, 30, 20, 0.4, 0.3, 1.0, 0.3, 0.3)
    assert half.shift < 1e-6


def test_pairs_of_a_bag_are_spread_over_it(tmp_path: Path) -> None:
    bag = bag_files.write(tmp_path / "bag", bag_files.recording(9))
    pairs = alignment.spread_pairs(bag, 3)
    stamps = [(pair.stamp_ns - bag_files.FIRST_NS) / bag_files.PERIOD_NS for pair in pairs]
    assert stamps == [0, 4, 8] and all(all(pair.present) for pair in pairs)
    assert len(alignment.spread_pairs(bag, 100)) == 9
    (tmp_path / "one").mkdir()
    cv2.imwrite(str(tmp_path / "one" / "1.png"), overlay.to_bgr(pairs[0].images[0]))
    with pytest.raises(SequenceError, match="no pair of images: an RGB and a thermal"):
        alignment.spread_pairs(tmp_path / "one", 3)
