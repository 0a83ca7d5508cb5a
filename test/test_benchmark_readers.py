"""Benchmarks as published: small trees with each one's quirks; and annotated stills."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from ckd_tracker_ros.sequences import KINDS, SequenceError, list_tracks, open_data_set, open_sequence, read_stills

FRAMES = 12
BOXES = [[20 + i, 30, 8, 6] for i in range(FRAMES)]
SHIFTED = [[x + 2, *rest] for x, *rest in BOXES]


def write_images(folder: Path, numbers: Sequence[int], name: str = "{:06d}.png") -> None:
    """Grey images whose level is their number."""
    folder.mkdir(parents=True)
    for i in numbers:
        assert cv2.imwrite(str(folder / name.format(i)), np.full((4, 6), i, np.uint8))


def write_rows(file: Path, rows: Sequence[Sequence[float]], separator: str = ",", end: str = "\n") -> None:
    file.write_text("".join(separator.join(f"{value:g}" for value in row) + end for row in rows), newline="")


def levels(frame) -> list[int]:
    return [int(image.pixels.flat[0]) for image in frame.images]


def write_gtot(folder: Path) -> None:
    for name in "vi":
        write_images(folder / name, range(1, FRAMES + 1), "{}.png")  # 10 sorts before 2 as text
    for file, boxes in (("groundTruth_v.txt", BOXES), ("groundTruth_i.txt", SHIFTED)):
        corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
        corners[3] = [corners[3][i] for i in (2, 3, 0, 1)]
        corners[4] = [corners[4][i] for i in (0, 3, 2, 1)]
        write_rows(folder / file, corners, " ")
    write_rows(folder / "init.txt", [[19, 30, 8, 6]], "\t", "\r\n")


def write_pair(folder: Path, init: bool = True) -> None:
    """As RGBT210, RGBT234 and LasHeR do."""
    for name, boxes in (("visible", BOXES), ("infrared", SHIFTED)):
        write_images(folder / name, range(FRAMES), name[0] + "{:03d}.png")
        write_rows(folder / f"{name}.txt", boxes, ",", "\r\n")
    if init:
        write_rows(folder / "init.txt", BOXES, ",", "\r\n")


def write_vtuav(folder: Path, first: int = 0, start: int = 0, frames: int = 30, columns: int = 4) -> list[list[float]]:
    """Images numbered from `first`, truth of image `start` and every tenth from there on; gives the rows back."""
    for name in ("rgb", "ir"):
        write_images(folder / name, range(first, first + frames))
    rows = [[20 + i, 30, 8, 6] for i in range(start, first + frames, 10)]
    for file in ("rgb.txt", "ir.txt"):
        write_rows(folder / file, [row + [x + 2 for x in row] * (columns == 8) for row in rows], " ")
    return rows


def test_gtot_corners_become_boxes(tmp_path: Path) -> None:
    write_gtot(tmp_path / "Car1")
    sequence = open_sequence(tmp_path / "Car1")
    assert (sequence.name, len(sequence), sequence.first_frame) == ("Car1", FRAMES, 0)
    for truth, expected in zip(sequence.truths, (BOXES, SHIFTED), strict=True):
        assert truth.tolist() == expected, "in any order of the corners"
    assert sequence.boxes.tolist() == [[19, 30, 8, 6], *BOXES[1:]], "starts with init.txt"
    assert sequence.annotated.tolist() == list(range(FRAMES))
    assert [levels(sequence.frame(i)) for i in (1, 9)] == [[2, 2], [10, 10]], "natural order"


def test_init_wins_over_a_wrong_first_row(tmp_path: Path) -> None:
    folder = tmp_path / "RGBT234" / "afterrain"
    write_pair(folder)
    wrong = [[144, 53, 10, 80], *BOXES[1:]]
    write_rows(folder / "visible.txt", wrong)
    sequence = open_sequence(folder)
    assert sequence.boxes.tolist() == BOXES
    assert [truth.tolist() for truth in sequence.truths] == [wrong, SHIFTED], "metrics see what was published"
    write_rows(folder / "init.txt", [[0, 0, 0, 0]])
    assert open_sequence(folder).boxes.tolist() == wrong, "no box to start with"


def test_unseen_rows_and_targets_at_the_border(tmp_path: Path) -> None:
    write_pair(tmp_path / "boy")
    rows = np.array(BOXES, float)
    rows[3:8] = [[0, 0, 0, 0], [20, 30, 0, 0], [20, 30, -1, 6], [0, 30, 8, 6], [20, 0, 8, 6]]
    write_rows(tmp_path / "boy" / "visible.txt", rows.tolist())
    sequence = open_sequence(tmp_path / "boy")
    assert np.isnan(sequence.boxes).all(axis=1).nonzero()[0].tolist() == [3, 4, 5]
    assert sequence.boxes[6:8].tolist() == rows[6:8].tolist(), "left or top of 0 is seen"
    assert np.array_equal(sequence.truths[0], rows)


def test_missing_truth_is_taken_from_init(tmp_path: Path) -> None:
    write_pair(tmp_path / "cameraman_1202")
    (tmp_path / "cameraman_1202" / "visible.txt").unlink()
    assert [truth.tolist() for truth in open_sequence(tmp_path / "cameraman_1202").truths] == [BOXES, SHIFTED]
    write_pair(tmp_path / "no_init", init=False)
    (tmp_path / "no_init" / "visible.txt").unlink()
    sequence = open_sequence(tmp_path / "no_init")
    assert sequence.truths[0] is None and sequence.boxes.tolist() == SHIFTED


def test_a_benchmark_without_truth_is_a_pair_of_cameras(tmp_path: Path) -> None:
    write_vtuav(tmp_path / "bus")
    for file in ("rgb.txt", "ir.txt"):
        (tmp_path / "bus" / file).unlink()
    sequence = open_sequence(tmp_path / "bus")
    assert sequence.frame(0).present == (True, True) and sequence.boxes is None
    assert sequence.truths == (None, None) and len(sequence.annotated) == 0
    write_images(tmp_path / "birds", range(2))
    assert open_sequence(tmp_path / "birds").frame(0).present == (True, False), "no ir, but for its letters"


def test_one_camera_of_a_benchmark(tmp_path: Path) -> None:
    write_pair(tmp_path / "dark", init=False)
    for file in (tmp_path / "dark" / "visible").iterdir():
        file.unlink()
    (tmp_path / "dark" / "visible").rmdir()
    sequence = open_sequence(tmp_path / "dark")
    assert sequence.frame(0).present == (False, True) and sequence.boxes.tolist() == SHIFTED


@pytest.mark.parametrize(("first", "start", "listed"), [(0, 0, None), (0, 3, 3), (5, 5, None), (5, 8, np.int64(8))])
def test_vtuav_rows_belong_to_every_tenth_frame(tmp_path: Path, first: int, start: int, listed: int | None) -> None:
    folder = tmp_path / "train" / "train_ST_001" / "car_007"
    rows = write_vtuav(folder, first, start)
    if listed is not None:
        np.save(tmp_path / "init_frame.npy", {"bus_001": 77, "car_007": listed}, allow_pickle=True)
    sequence = open_sequence(folder)
    frames = list(range(start - first, 30, 10))
    assert (len(sequence), sequence.first_frame, sequence.annotated.tolist()) == (30, start - first, frames)
    assert sequence.truths[0].tolist() == sequence.truths[1].tolist() == rows
    assert len(sequence.boxes) == frames[-1] - frames[0] + 1
    known = np.isfinite(sequence.boxes).all(axis=1).nonzero()[0] + sequence.first_frame
    assert known.tolist() == frames and sequence.boxes[::10].tolist() == rows
    assert levels(sequence.frame(frames[1])) == [start + 10] * 2


def test_vtuav_rows_of_both_cameras(tmp_path: Path) -> None:
    rows = write_vtuav(tmp_path / "bus", columns=8)
    (tmp_path / "bus" / "ir.txt").unlink()
    truths = open_sequence(tmp_path / "bus").truths
    assert truths[0].tolist() == rows and truths[1].tolist() == [[x + 2 for x in row] for row in rows]


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", ["bomb", "text", "array"])
def test_a_bad_list_of_start_frames_is_refused_unexecuted(tmp_path: Path, content: str) -> None:
    write_vtuav(tmp_path / "car")
    file, mark = tmp_path / "init_frame.npy", tmp_path / "executed"
    if content == "text":
        file.write_text("car 3")
    else:
        np.save(file, Bomb(mark) if content == "bomb" else np.arange(3), allow_pickle=True)
    with pytest.raises(SequenceError, match=r"init_frame\.npy cannot be used: .*dictionary of sequence -> number"):
        open_sequence(tmp_path / "car")
    assert not mark.exists()
    if content == "bomb":
        np.load(file, allow_pickle=True)
        assert mark.exists(), "numpy's own reader would have run it"


# ---- lengths ----


def test_a_frame_or_row_too_many_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pair(tmp_path / "walk", init=False)
    write_rows(tmp_path / "walk" / "infrared.txt", SHIFTED[:-1])
    (tmp_path / "walk" / "infrared" / f"i{FRAMES - 1:03d}.png").unlink()
    sequence = open_sequence(tmp_path / "walk")
    assert len(sequence) == len(sequence.boxes) == FRAMES - 1
    assert [len(truth) for truth in sequence.truths] == [FRAMES - 1] * 2
    assert f"visible: {FRAMES}, infrared: {FRAMES - 1}): the first {FRAMES - 1} count" in caplog.text
    write_vtuav(tmp_path / "bus", frames=25)
    for file in ("rgb.txt", "ir.txt"):
        write_rows(tmp_path / "bus" / file, BOXES[:4], " ")
    assert open_sequence(tmp_path / "bus").annotated.tolist() == [0, 10, 20]
    assert "1 rows of truth behind its last frame" in caplog.text


def cut_images(folder: Path) -> None:
    for i in range(6):
        (folder / "infrared" / f"i{i:03d}.png").unlink()


def cut_rows(folder: Path) -> None:
    write_rows(folder / "infrared.txt", BOXES[:-6])


def add_rows(folder: Path) -> None:
    for file in ("visible.txt", "infrared.txt"):
        write_rows(folder / file, BOXES + BOXES[:6])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_images, r"\(visible: 12, infrared: 6\); expected: a difference of at most 5"),
        (cut_rows, r"\(visible\.txt: 12, infrared\.txt: 6\); expected"),
        (add_rows, "18 rows of truth, one for every 1 of its 12 frames, but no image number 12"),
        (lambda folder: (folder / "visible.txt").write_text("1,2,3,4\n1,2,3\n"), r"visible\.txt, line 2 is '1,2,3'"),
        (lambda folder: (folder / "visible.txt").write_text("1,2,3,4\n1,2,a,4\n"), r"visible\.txt, line 2 .*left, top"),
    ],
)
def test_a_damaged_download_is_refused(tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    write_pair(tmp_path / "walk", init=False)
    damage(tmp_path / "walk")
    with pytest.raises(SequenceError, match=said):
        open_sequence(tmp_path / "walk")


def test_a_lost_image_of_vtuav_is_named(tmp_path: Path) -> None:
    write_vtuav(tmp_path / "bus")
    for name in ("rgb", "ir"):
        (tmp_path / "bus" / name / "000010.png").unlink()
    with pytest.raises(SequenceError, match="3 rows .* every 10 of its 29 frames, but no image number 10"):
        open_sequence(tmp_path / "bus")


# ---- data sets ----


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """One sequence of every layout, in folders as deep as they come."""
    root = tmp_path / "sets"
    write_gtot(root / "a" / "Car")
    for name in ("man10", "man9", "comingboy'shead"):
        write_pair(root / "LasHeR" / "testingset" / name)
    write_pair(root / "x" / "RGBT210" / "bike")
    for group in ("test_ST_001", "test_ST_002"):
        write_vtuav(root / "VTUAV" / group / "pedestrian_042")
    write_images(root / "single" / "tir_horse" / "images", range(3))
    write_rows(root / "single" / "tir_horse" / "groundtruth.txt", BOXES[:3])
    write_images(root / "stills", range(3))
    return root


def test_a_data_set_is_found_in_natural_order(data_set: Path) -> None:
    found = [(sequence.name, sequence.kind) for sequence in open_data_set(data_set)]
    assert found == [
        ("Car", "gtot"),
        ("comingboy'shead", "lasher"), ("man9", "lasher"), ("man10", "lasher"),
        ("tir_horse", "folder"),
        ("VTUAV_test_ST_001_pedestrian_042", "vtuav"), ("VTUAV_test_ST_002_pedestrian_042", "vtuav"),
        ("bike", "rgbt210"),
    ]  # fmt: skip
    assert [sequence.name for sequence in open_data_set(data_set, "lasher", ["man9", "comingboy'shead"])] == [
        "comingboy'shead", "man9",
    ]  # fmt: skip
    assert [sequence.name for sequence in open_data_set(data_set / "single", "folder")] == ["tir_horse"]
    (alone,) = open_data_set(data_set / "a" / "Car")
    assert alone.name == "Car" and alone.boxes.shape == (FRAMES, 4)


def test_the_kind_is_unknown_where_nothing_tells(tmp_path: Path) -> None:
    write_pair(tmp_path / "walk")
    assert open_data_set(tmp_path)[0].kind is None
    assert open_data_set(tmp_path, "rgbt234")[0].kind == "rgbt234"


def test_sequences_are_opened_when_used_and_by_other_processes(data_set: Path) -> None:
    sequence = open_data_set(data_set, "gtot")[0]
    restored = pickle.loads(pickle.dumps(sequence))
    direct = open_sequence(sequence.path)
    for each in (sequence, restored):
        assert (each.name, each.kind, len(each), each.rate, each.first_frame) == ("Car", "gtot", FRAMES, 30.0, 0)
        assert np.array_equal(each.boxes, direct.boxes) and np.array_equal(each.truths, direct.truths)
        assert levels(each.frame(4)) == [5, 5]
    (sequence.path / "groundTruth_v.txt").write_text("nonsense\n")
    assert len(sequence) == FRAMES, "already open"
    sequence.close()
    with pytest.raises(SequenceError, match=r"groundTruth_v\.txt, line 1 .*corners x1, y1, x2, y2"):
        len(sequence)


def test_single_modality_sequences(data_set: Path) -> None:
    (horse,) = open_data_set(data_set / "single")
    assert horse.frame(0).present == (False, True), "its name says tir"
    assert horse.truths[0] is None and horse.truths[1].tolist() == horse.boxes.tolist() == BOXES[:3]
    write_rows(horse.path / "groundtruth.txt", [BOXES[0], [0, 0, 0, 0]])
    assert np.isnan(open_sequence(horse.path).boxes[1]).all()


def test_what_is_no_data_set_says_what_was_expected(data_set: Path) -> None:
    with pytest.raises(ValueError, match=f"kind is 'otb'; allowed: {', '.join(KINDS)}"):
        open_data_set(data_set, "otb")
    with pytest.raises(SequenceError, match="absent is no folder; expected: folders, .*gtot"):
        open_data_set(data_set / "absent")
    with pytest.raises(SequenceError, match=r"holds tir_horse/; expected: .* of gtot \(v/ and i/ .*groundTruth_v\.txt"):
        open_data_set(data_set / "single", "gtot")
    with pytest.raises(SequenceError, match=r"has no sequence 'man8'; it has: comingboy'shead, man9, man10"):
        open_data_set(data_set / "LasHeR", names=["man8", "man9"])
    (data_set / "a" / "Car" / "init.txt").unlink()
    for file in (data_set / "a" / "Car").glob("*.txt"):
        file.unlink()
    with pytest.raises(SequenceError, match=r"Car has no row of truth; expected: v/ and i/"):
        len(open_data_set(data_set / "a", "gtot")[0])


# ---- annotated stills ----


def test_wrong_records_are_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = [
        {"file": "a.jpg", "boxes_xywh": [[1, 2, 3, 4.5], [5, 6, 7, 8]]},
        {"file": "b#1.jpg", "boxes_xywh": [], "modality": "rgb", "sequence": "bird", "label": "bird"},
    ]
    bad = {
        "no boxes_xywh; it has: file": {"file": "c.jpg"},
        "no file; it has: boxes_xywh": {"boxes_xywh": []},
        "box [1, 2, 3]; expected: left, top": {"file": "d.jpg", "boxes_xywh": [[1, 2, 3, 4], [1, 2, 3]]},
        "box [1, 2, -3, 4]": {"file": "e.jpg", "boxes_xywh": [[1, 2, -3, 4]]},
        "box [1, 2, nan, 4]": {"file": "f.jpg", "boxes_xywh": [[1, 2, float("nan"), 4]]},
        "box '1,2,3,4'": {"file": "g.jpg", "boxes_xywh": ["1,2,3,4"]},
        "boxes_xywh is 5": {"file": "h.jpg", "boxes_xywh": 5},
        "modality is 'radar'; allowed: rgb, thermal": {"file": "i.jpg", "boxes_xywh": [], "modality": "radar"},
        "sequence is 7": {"file": "j.jpg", "boxes_xywh": [], "sequence": 7},
        "it is 3; expected: an object": 3,
    }
    (tmp_path / "annotations.json").write_text(json.dumps([good[0], *bad.values(), good[1]]))
    stills, skipped = read_stills(tmp_path)
    assert skipped == len(bad)
    for (reason, record), line in zip(bad.items(), caplog.messages, strict=True):
        name = record.get("file") if isinstance(record, dict) else None
        assert reason in line and f"({name})" in line and str(tmp_path) in line
    assert [(still.path, still.modality, still.sequence, still.boxes.tolist()) for still in stills] == [
        (tmp_path / "a.jpg", "thermal", None, good[0]["boxes_xywh"]),
        (tmp_path / "b#1.jpg", "rgb", "bird", []),
    ]
    assert stills[1].boxes.shape == (0, 4)


@pytest.mark.parametrize("content", ["{", '{"file": "a"}', None])
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "list.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SequenceError, match=r"list\.json cannot be used: .*expected: a list of {file, boxes_xywh"):
        read_stills(file)


# ---- what lies beside the repository ----


def test_the_real_single_modality_sequences(shared: Path) -> None:
    sequences = open_data_set(shared / "data" / "single_modality_eval")
    assert len(sequences) == 11
    for sequence in sequences:
        thermal = sequence.name.startswith("tir_")
        assert sequence.boxes.shape == (len(sequence), 4) and np.isfinite(sequence.boxes).all()
        for i in (0, len(sequence) - 1):
            assert sequence.frame(i).present == (not thermal, thermal)


def test_the_real_tracks(shared: Path) -> None:
    found = open_data_set(shared / "data" / "m3svd", "videos")
    assert {sequence.name for sequence in found} < set(list_tracks(shared / "data" / "m3svd"))
    assert all(np.isfinite(sequence.boxes).all() for sequence in found) and len(found) == 4


@pytest.mark.parametrize(
    ("name", "images", "boxes"),
    [("hit_uav", 2277, 18017), ("caltech101", 2100, 2100), ("coco_by", 80, 657), ("plates_cars", 527, 640),
     ("drone_cc0", 3190, 3190)],
)  # fmt: skip
def test_the_real_stills(shared: Path, name: str, images: int, boxes: int) -> None:
    stills, skipped = read_stills(shared / "data" / name)
    assert (len(stills), sum(len(still.boxes) for still in stills), skipped) == (images, boxes, 0)
    assert stills[0].path.is_file() and stills[-1].path.is_file()
