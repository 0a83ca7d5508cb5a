"""Recordings: every layout is read, every frame is the one asked for, and what cannot be read says why."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ckd_tracker_ros.sequences import (
    Recording,
    SceneSequence,
    Sequence,
    SequenceError,
    list_tracks,
    open_sequence,
    true_box,
)
from ckd_tracker_ros.synthetic import Scene, SceneConfig

WIDTH, HEIGHT, FRAMES = 96, 64, 12


def picture(i: int, dtype: type = np.uint8, channels: int = 3) -> np.ndarray:
    """A picture whose grey level tells its number, with a bright corner."""
    pixels = np.full((HEIGHT, WIDTH, channels), (20 + 16 * i) * (1 if dtype is np.uint8 else 200), dtype)
    pixels[:8, :8, : min(channels, 2)] = np.iinfo(dtype).max
    return pixels if channels > 1 else pixels[..., 0]


def write_images(folder: Path, numbers: range = range(FRAMES), end: str = ".png", **kind: object) -> Path:
    folder.mkdir(parents=True)
    for i in numbers:
        assert cv2.imwrite(str(folder / f"frame_{i}{end}"), picture(i, **kind))  # unpadded: 10 sorts before 2 as text
    return folder


def write_video(file: Path, frames: int = FRAMES, rate: float = 20.0, channels: int = 3) -> Path:
    codec = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(file), codec, rate, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for i in range(frames):
        drawn = picture(i % FRAMES, channels=channels)
        pixels = drawn if channels == 3 else cv2.cvtColor(drawn, cv2.COLOR_GRAY2BGR)
        writer.write(pixels)
    writer.release()
    return file


def number_in(pixels: np.ndarray) -> int:
    """What `picture` wrote."""
    level = float(np.median(pixels)) / (1 if pixels.dtype == np.uint8 else 200)
    return round((level - 20) / 16)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    folder = tmp_path / "walk"
    write_images(folder / "visible", end=".jpg")
    write_images(folder / "infrared", dtype=np.uint16, channels=1)
    return folder


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "b"):
        write_video(folder / f"{name}_visible.mp4")
        write_video(folder / f"{name}_infrared.mp4", channels=1)
    tracks = {
        "walker": {"video": "b", "first_frame": 2, "boxes_xywh": [[1, 2, 30, 40.5]] * 4},
        "dog": {"video": "a", "first_frame": 0, "boxes_xywh": [[5, 6, 7, 8]]},
    }
    (folder / "tracks.json").write_text(json.dumps(tracks))
    return folder


def test_a_folder_of_two_cameras(pair: Path) -> None:
    (pair / "groundtruth.txt").write_text("1,2,3,4\n5.5 6 7 8\n\n9\t10\t11\t12\n nan, nan, nan, nan\n")
    sequence = open_sequence(pair)
    assert (sequence.name, len(sequence), sequence.rate, sequence.first_frame) == ("walk", FRAMES, 30.0, 0)
    for i in (0, 2, 10, 11):
        visible, heat = sequence.frame(i).images
        assert number_in(visible.pixels) == number_in(heat.pixels) == i, "natural order"
        assert (visible.order, visible.pixels.dtype, visible.pixels.shape) == ("bgr", np.uint8, (HEIGHT, WIDTH, 3))
        assert (heat.order, heat.pixels.dtype, heat.pixels.shape) == ("mono", np.uint16, (HEIGHT, WIDTH))
    assert sequence.frame(3).stamp_ns == 100_000_000
    expected = [[1, 2, 3, 4], [5.5, 6, 7, 8], [9, 10, 11, 12], [np.nan] * 4]
    np.testing.assert_array_equal(sequence.boxes, expected)
    assert open_sequence(pair / "visible").boxes is None


def test_a_video_pair_with_tracks(videos: Path) -> None:
    assert list_tracks(videos) == ["walker", "dog", "a", "b"]
    assert list_tracks(videos / "b_infrared.mp4") == ["walker", "b"]
    first, chosen = open_sequence(videos), open_sequence(videos, "dog")
    assert (first.name, first.first_frame, first.rate, len(first)) == ("walker", 2, 20.0, FRAMES)
    assert chosen.boxes.tolist() == [[5, 6, 7, 8]]
    visible, heat = first.frame(4).images
    assert number_in(visible.pixels) == number_in(heat.pixels) == 4
    assert (visible.order, heat.order, heat.pixels.shape) == ("bgr", "mono", (HEIGHT, WIDTH))
    assert first.frame(4).stamp_ns == 200_000_000
    bare = open_sequence(videos / "b_visible.mp4")
    assert bare.boxes is None and bare.frame(0).present == (True, True)
    assert open_sequence(videos / "b_visible.mp4", "walker").boxes.shape == (4, 4)
    (videos / "tracks.json").unlink()
    assert open_sequence(videos, "b").boxes is None and list_tracks(videos) == ["a", "b"]


def test_true_boxes_outside_the_track_are_not_known(videos: Path) -> None:
    sequence = open_sequence(videos, "walker")
    known = [bool(np.isfinite(true_box(sequence, i)).all()) for i in range(FRAMES)]
    assert known == [False] * 2 + [True] * 4 + [False] * 6
    assert true_box(sequence, 5).tolist() == [1, 2, 30, 40.5]
    assert np.isnan(true_box(open_sequence(videos, "a"), 0)).all()


def test_two_paths_make_a_pair(pair: Path, tmp_path: Path) -> None:
    visible, heat = write_video(tmp_path / "left.mp4"), write_video(tmp_path / "right.avi", channels=1)
    frame = open_sequence((visible, heat)).frame(7)
    assert [number_in(image.pixels) for image in frame.images] == [7, 7]
    mixed = open_sequence((str(visible), pair / "infrared"))
    assert mixed.rate == 20.0 and mixed.frame(7).images[1].pixels.dtype == np.uint16


def test_one_camera_leaves_the_other_none(pair: Path, tmp_path: Path) -> None:
    only = tmp_path / "only"
    write_images(only / "infrared", channels=1)
    assert open_sequence(only).frame(0).present == (False, True)
    assert open_sequence(pair / "visible").frame(0).present == (True, False)
    assert open_sequence(pair / "infrared").frame(0).present == (False, True), "its name says so"
    assert open_sequence(pair / "infrared", modality="rgb").frame(0).present == (True, False)
    video = write_video(tmp_path / "clip.mp4")
    assert open_sequence(video).frame(1).present == (True, False)
    assert open_sequence(video, modality="thermal").frame(1).images[1].order == "bgr", "it has colours"
    benchmark = tmp_path / "Car"
    write_images(benchmark / "images")
    (benchmark / "groundtruth.txt").write_text("1,2,3,4\n" * FRAMES)
    assert open_sequence(benchmark).boxes.shape == (FRAMES, 4)
    with pytest.raises(ValueError, match="modality is 'radar'; allowed: rgb, thermal"):
        open_sequence(video, modality="radar")


def assert_random_access_is_sequential(sequence: Sequence, video: Path, modality: int, order: list[int]) -> None:
    """Every frame equals the one that plain decoding gives."""
    capture = cv2.VideoCapture(str(video))
    decoded = [capture.read()[1] for _ in range(max(order) + 1)]
    for i in order:
        pixels = sequence.frame(i).images[modality].pixels
        reference = decoded[i] if pixels.ndim == 3 else decoded[i][..., 1]
        assert np.array_equal(pixels, reference), i


def test_random_access_equals_decoding_in_order(videos: Path) -> None:
    sequence = open_sequence(videos, "a")
    assert_random_access_is_sequential(sequence, videos / "a_visible.mp4", 0, [5, 6, 5, 0, 11, 3, 11, 10, 0, 1])


@pytest.mark.parametrize("track", ["smoke_away", "stairs_man", "banner_walker"])
def test_real_videos(shared: Path, track: str) -> None:
    folder = shared / "data" / "m3svd"
    assert {"smoke_away", "smoke_puffer", "stairs_man", "banner_walker"} <= set(list_tracks(folder))
    sequence = open_sequence(folder, track)
    entry = json.loads((folder / "tracks.json").read_text())[track]
    assert sequence.boxes.tolist() == entry["boxes_xywh"] and sequence.first_frame == entry["first_frame"]
    visible, heat = sequence.frame(sequence.first_frame).images
    assert (visible.order, heat.order) == ("bgr", "mono")
    assert visible.pixels.shape[:2] == heat.pixels.shape == (480, 640)
    for modality, end in enumerate(("visible", "infrared")):
        video = folder / f"{entry['video']}_{end}.mp4"
        assert_random_access_is_sequential(sequence, video, modality, [30, 31, 12, 13, 59, 58, 0])
    assert sequence.frame(len(sequence) - 1).present == (True, True)


def test_real_folders(shared: Path) -> None:
    clip = open_sequence(shared / "data" / "m3svd_clips" / "0111_1753")
    assert len(clip) == 20 and clip.frame(19).images[1].order == "mono"
    car = open_sequence(shared / "data" / "single_modality_eval" / "Car1")
    assert car.boxes.shape == (len(car), 4) and car.frame(0).present == (True, False)


def test_a_scene_is_a_sequence() -> None:
    scene = Scene(SceneConfig(width=160, height=120, frames=60, fps=20, size=(20, 30), targets=2, absence=0.3), 1)
    sequence: Sequence = SceneSequence(scene, target=1)
    assert (len(sequence), sequence.rate, sequence.first_frame) == (60, 20, 0)
    assert np.array_equal(sequence.frame(9).images[0].pixels, scene.frame(9).images[0].pixels)
    for i in range(60):
        expected = scene.boxes(i)[1] if scene.visible(i)[1] > 0 else np.full(4, np.nan)
        np.testing.assert_array_equal(true_box(sequence, i), expected)
    assert 0 < np.isnan(sequence.boxes[:, 0]).sum() < 60
    with pytest.raises(IndexError, match="target 2 of a scene with 2"):
        SceneSequence(scene, target=2)


# ---- what cannot be read ----


def test_frames_outside_are_refused(pair: Path) -> None:
    for index in (-1, FRAMES):
        with pytest.raises(IndexError, match=rf"frame {index} of walk, whose frames are 0 to {FRAMES - 1}"):
            open_sequence(pair).frame(index)


def test_unequal_cameras_are_refused(pair: Path, tmp_path: Path) -> None:
    (pair / "infrared" / "frame_0.png").unlink()
    with pytest.raises(SequenceError, match=rf"number of frames .*visible: {FRAMES}, .*infrared: {FRAMES - 1}"):
        open_sequence(pair)
    slow = write_video(tmp_path / "slow.mp4", rate=10.0)
    with pytest.raises(SequenceError, match="frames per second"):
        open_sequence((write_video(tmp_path / "fast.mp4"), slow))
    with pytest.raises(SequenceError, match="no camera"):
        Recording("nothing", (None, None))


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
@pytest.mark.parametrize("camera", ["visible", "infrared"])
def test_a_corrupt_image_is_named(pair: Path, camera: str, damage: str) -> None:
    (file,) = (pair / camera).glob("frame_3.*")
    data = file.read_bytes()
    file.write_bytes({"cut": data[: len(data) // 2], "noise": b"\x00\x01" * 300, "empty": b""}[damage])
    sequence = open_sequence(pair)
    sequence.frame(2)
    with pytest.raises(SequenceError, match=f"{camera}/{file.name} is no image"):
        sequence.frame(3)
    assert sequence.frame(4).present == (True, True)


def test_a_corrupt_video_is_named(tmp_path: Path) -> None:
    video = tmp_path / "bad.mp4"
    video.write_bytes(b"no video" * 40)
    with pytest.raises(SequenceError, match=r"bad\.mp4 is no video that can be decoded \(320 bytes\)"):
        open_sequence(video)


def test_a_video_that_ends_early_is_named(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", frames=60)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])  # the head still announces 60
    sequence = open_sequence(cut)
    sequence.frame(0)
    with pytest.raises(SequenceError, match=rf"cut\.avi ends or is corrupt at frame \d+; it announces {len(sequence)}"):
        for i in range(60):
            sequence.frame(i)


@pytest.mark.parametrize("line", ["1,2,3", "1 2 3 4 5", "a,b,c,d", "1;2;3;"])
def test_bad_truth_names_its_line(pair: Path, line: str) -> None:
    (pair / "groundtruth.txt").write_text(f"1,2,3,4\n{line}\n")
    with pytest.raises(SequenceError, match=r"groundtruth\.txt, line 2 .*left, top, width, height"):
        open_sequence(pair)


def test_more_boxes_than_frames_are_refused(pair: Path) -> None:
    (pair / "groundtruth.txt").write_text("1,2,3,4\n" * (FRAMES + 1))
    with pytest.raises(SequenceError, match=rf"boxes of frames 0 to {FRAMES}, but its frames are 0 to {FRAMES - 1}"):
        open_sequence(pair)


@pytest.mark.parametrize(
    "content",
    ["{", "[1, 2]", '{"x": {"video": "a"}}', '{"x": {"video": "a", "first_frame": 0, "boxes_xywh": [[1, 2, 3]]}}'],
)
def test_bad_track_files_are_refused(videos: Path, content: str) -> None:
    (videos / "tracks.json").write_text(content)
    with pytest.raises(SequenceError, match=r"tracks\.json cannot be used: .*expected: .*boxes_xywh"):
        open_sequence(videos)


def test_a_wrong_path_or_track_says_what_there_is(videos: Path, pair: Path, tmp_path: Path) -> None:
    for path, track, said in (
        (tmp_path / "absent", None, "does not exist; expected: a folder with visible/"),
        (tmp_path, None, "holds videos/, walk/; expected"),
        (videos / "tracks.json", None, "no video, by its name; expected"),
        (videos, "cat", "no track 'cat'; it has: walker, dog, a, b"),
        (videos / "a_visible.mp4", "walker", "no track 'walker'; it has: dog, a"),
        (pair, "walker", "walk has no track 'walker'"),
    ):
        with pytest.raises(SequenceError, match=said):
            open_sequence(path, track)
    (tmp_path / "void").mkdir()
    with pytest.raises(SequenceError, match="holds nothing"):
        open_sequence(tmp_path / "void")
    (tmp_path / "empty" / "visible").mkdir(parents=True)
    with pytest.raises(SequenceError, match=r"visible holds no image; expected files ending in \.png"):
        open_sequence(tmp_path / "empty")
    (videos / "b_visible.mp4").unlink()
    (videos / "b_infrared.mp4").unlink()
    with pytest.raises(SequenceError, match="track 'walker' is of video 'b'; .*has: a"):
        open_sequence(videos, "walker")
    with pytest.raises(SequenceError, match="absent does not exist"):
        open_sequence((videos / "a_visible.mp4", tmp_path / "absent"))
