"""Bags of generated scenes: read, paired, tracked through and written back."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="bags are read with rosbags: pip install rosbags")

import bag_files
from bag_files import FIRST_NS, LATE_NS, PERIOD_NS, TOPICS, Sent, compressed, raw, recording, scene, write
from rosbags.highlevel import AnyReader
from typer.testing import CliRunner

from ckd_tracker_ros import bag, cli
from ckd_tracker_ros.images import decode_pair
from ckd_tracker_ros.pairing import PairingSettings
from ckd_tracker_ros.registration import Registration
from ckd_tracker_ros.sequences import SequenceError, open_sequence
from ckd_tracker_ros.sequences.bags import Bag, BagError, BagSequence, pairs
from ckd_tracker_ros.target import LostSettings, Target, follow
from ckd_tracker_ros.tracker import BoxError

FRAMES = 6
BOX = tuple(scene(FRAMES).boxes(0)[0])
START = ",".join(map(str, BOX))


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("bags") / "walk", recording(FRAMES))


def ready(path: Path) -> tuple[Bag, tuple[str, str]]:
    opened = Bag(path)
    return opened, opened.cameras()


def results(path: Path) -> list[tuple[int, object]]:
    """Receive time and message of a written bag, by the definitions that it carries itself."""
    with AnyReader([path]) as reader:
        assert [(c.topic, c.msgtype) for c in reader.connections] == [
            ("/ckd_tracker/targets", "ckd_tracker_msgs/msg/TrackedTargetArray")
        ]
        return [(time, reader.deserialize(data, c.msgtype)) for c, time, data in reader.messages()]


def run(*arguments: object):
    return CliRunner().invoke(cli.app, ["bag", *map(str, arguments)])


def box_of(target) -> list[float]:
    return [target.box.x, target.box.y, target.box.width, target.box.height]


@pytest.mark.parametrize(
    ("storage", "compression"),
    [
        ("sqlite3", ""),
        ("sqlite3", "file"),
        ("sqlite3", "message"),
        ("mcap", ""),
        ("mcap", "message"),
        ("mcap", "storage"),
    ],
)
def test_a_bag_gives_the_pixels_and_stamps_that_went_in(tmp_path, storage, compression):
    path = write(tmp_path / "walk", recording(FRAMES), storage, compression, others=("/tf",))
    sequence = open_sequence(path)
    assert (sequence.name, len(sequence), sequence.rate, sequence.boxes) == ("walk", FRAMES, 30.0, None)
    for index in range(FRAMES):
        frame = sequence.frame(index)
        assert frame.stamp_ns == FIRST_NS + index * PERIOD_NS
        for image, drawn in zip(frame.images, scene(FRAMES).frame(index).images, strict=True):
            assert image.order == drawn.order
            np.testing.assert_array_equal(image.pixels, drawn.pixels)
    with Bag(path) as opened:
        kinds = {topic.name: (topic.type, topic.count) for topic in opened.topics}
        assert kinds == {
            **dict.fromkeys(TOPICS, ("sensor_msgs/msg/Image", FRAMES)),
            "/tf": ("std_msgs/msg/Header", 1),
        }
        recorded = list(opened.messages(TOPICS))
    assert [each.key.received_ns - FIRST_NS for each in recorded[:3]] == [LATE_NS, 2 * LATE_NS, PERIOD_NS + LATE_NS]


@pytest.mark.parametrize("end", [".db3", ".mcap"])
def test_a_storage_file_alone_is_a_bag(tmp_path, end):
    folder = write(tmp_path / "walk", recording(2), "mcap" if end == ".mcap" else "sqlite3")
    (folder / "metadata.yaml").unlink()  # as after a recording that was killed
    with pytest.raises(SequenceError, match=f"no metadata.yaml.*ros2 bag reindex.*walk{end}"):
        open_sequence(folder)
    sequence = open_sequence(folder / f"walk{end}")
    assert (sequence.name, len(sequence)) == ("walk", 2)


def test_compressed_images_are_decoded_and_raw_ones_preferred(tmp_path):
    topics = tuple(f"{topic}/compressed" for topic in TOPICS)
    sent = recording(3, images=compressed, topics=topics)
    frame = open_sequence(write(tmp_path / "compressed", sent)).frame(1)
    drawn = scene(3).frame(1)
    assert abs(frame.images[0].pixels.astype(float) - drawn.images[0].pixels).mean() < 8  # JPEG
    np.testing.assert_array_equal(frame.images[1].pixels, drawn.images[1].pixels)  # 16-bit PNG
    _, cameras = ready(write(tmp_path / "both", sent + recording(3)))
    assert cameras == TOPICS


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("/camera/image_raw", "/flir/thermal/image"), (0, 1)),
        (("/left/color/image_raw", "/lepton/ir_image"), (0, 1)),
        (("/rgb_thermal/rgb/image", "/rgb_thermal/thermal/image"), (0, 1)),
        (("/camera/image_raw", "/infrared", "/camera/depth/image", "/ckd_tracker/debug_image"), (0, 1)),
        (("/airfield/visible", "/airfield/infrared", "/rear/image"), (0, 1)),
        (("/a/image", "/b/image", "/thermal"), "several topics could be the rgb camera"),
        (("/rgb/image", "/b/image"), "no topic is recorded that looks like the thermal camera"),
        (("/rgb/image", "/thermal_left", "/thermal_right"), "several topics could be the thermal camera"),
    ],
)
def test_topics_are_found_by_name_or_listed(tmp_path, names, chosen):
    pixels = np.zeros((2, 2), np.uint8)
    opened = Bag(write(tmp_path / "bag", [Sent(name, 1, raw(pixels, 1, "")) for name in names], others=("/rgb/info",)))
    if isinstance(chosen, str):
        with pytest.raises(BagError, match=f"{chosen}.*--(rgb|thermal)") as caught:
            opened.cameras()
        assert all(name in str(caught.value) for name in names) and "/rgb/info" not in str(caught.value)
        assert opened.cameras(names[0], names[1]) == names[:2]
    else:
        assert opened.cameras() == tuple(names[index] for index in chosen)
    with pytest.raises(BagError, match="cannot be both cameras"):
        opened.cameras(names[0], names[0])
    with pytest.raises(BagError, match="no image topic '/rgb/info' for rgb; its image topics: "):
        opened.cameras("/rgb/info")


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
@pytest.mark.parametrize(
    ("late", "settings", "count"),
    [(3 * PERIOD_NS // 2, PairingSettings(), 6), (0, PairingSettings(slop=0.04, reuse=True), 12)],
    ids=["late", "reuse"],
)
def test_frames_in_any_order_are_the_pairs_of_the_pairing(tmp_path, storage, late, settings, count):
    """Thermal images at half the rate: behind the next RGB image, or each for two of them."""
    kept = [each for index, each in enumerate(recording(12)) if index % 4 != 3]
    sent = [replace(each, received_ns=each.received_ns + late * (each.topic == TOPICS[1])) for each in kept]
    path = write(tmp_path / "walk", sent, storage)
    opened, cameras = ready(path)
    expected = [decode_pair(pair) for pair in pairs(opened, cameras, settings.start())]
    assert len(expected) == count
    sequence = BagSequence(path, settings=settings)
    order = [*range(len(expected)), *random.Random(3).choices(range(len(expected)), k=20)]
    for index in order:
        frame = sequence.frame(index)
        assert frame.stamp_ns == expected[index].stamp_ns
        for got, wanted in zip(frame.images, expected[index].images, strict=True):
            np.testing.assert_array_equal(got.pixels, wanted.pixels)
    with pytest.raises(IndexError, match=f"frame {len(expected)} of walk"):
        sequence.frame(len(expected))


def test_boxes_lie_beside_the_messages(tmp_path):
    path = write(tmp_path / "walk", recording(FRAMES))
    boxes = np.array([scene(FRAMES).boxes(index)[0] for index in range(FRAMES)])
    np.savetxt(path / "groundtruth.txt", boxes, delimiter=",")
    sequence = open_sequence(path)
    np.testing.assert_allclose(sequence.boxes, boxes)
    assert sequence.annotated.tolist() == list(range(FRAMES)) and sequence.truths[0] is sequence.boxes
    np.savetxt(path / "groundtruth.txt", np.vstack([boxes, boxes]), delimiter=",")
    with pytest.raises(SequenceError, match="gives 6 pairs, but there are boxes for 12"):
        open_sequence(path)


def test_a_frame_that_does_not_decode_is_named_and_the_others_are_read(tmp_path):
    sent = recording(3)
    sent[2].message.data = sent[2].message.data[:100]
    sequence = open_sequence(write(tmp_path / "walk", sent))
    with pytest.raises(SequenceError, match="frame 1 of .*walk: truncated image"):
        sequence.frame(1)
    assert sequence.frame(2).stamp_ns == FIRST_NS + 2 * PERIOD_NS


def cut(path: Path, share: float) -> None:
    (file,) = (file for file in path.iterdir() if file.suffix in (".db3", ".mcap"))
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])


def unknown_storage(path: Path) -> None:
    file = path / "metadata.yaml"
    file.write_text(file.read_text().replace("sqlite3", "papyrus", 1))


@pytest.mark.parametrize(
    ("storage", "damage", "said"),
    [
        ("sqlite3", lambda path: cut(path, 0.5), "cannot be read.*malformed"),
        ("sqlite3", lambda path: cut(path, 0), "cannot be read"),
        ("mcap", lambda path: cut(path, 0.5), "cannot be read.*end magic"),
        ("mcap", lambda path: cut(path, 0), "cannot be read.*empty"),
        ("sqlite3", unknown_storage, "papyrus"),
        ("sqlite3", lambda path: (path / "metadata.yaml").write_text("{:"), "cannot be read"),
        ("sqlite3", lambda path: (path / "walk.db3").unlink(), "files are missing"),
    ],
)
def test_damaged_bags_are_refused_with_their_path(tmp_path, storage, damage: Callable[[Path], None], said):
    path = write(tmp_path / "walk", recording(2), storage)
    damage(path)
    with pytest.raises(BagError, match=f"{re.escape(str(path))}.*{said}"):
        open_sequence(path)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_bags_without_pairs_say_why(tmp_path, storage):
    def refusal(name: str, sent: list[Sent], **given: str) -> str:
        with pytest.raises(BagError) as caught:
            BagSequence(write(tmp_path / name, sent, storage), **given)
        return str(caught.value)

    assert "holds no message" in refusal("empty", [])
    rgb, thermal = (recording(3)[camera::2] for camera in (0, 1))
    for each in rgb:
        each.message.header.stamp.sec = each.message.header.stamp.nanosec = 0
    assert "stamps on /rgb/image_raw are not set" in refusal("unset", rgb + thermal)
    for each in thermal:
        each.message.header.stamp.sec += 7
    assert "thermal stamps are +7.0030 s from RGB" in refusal("apart", recording(3)[::2] + thermal)
    with pytest.raises(BagError, match="does not exist"):
        BagSequence(tmp_path / "nowhere")


@pytest.mark.parametrize("storage", bag.STORAGES)
def test_the_command_writes_what_the_tracker_says_on_the_pairs(walk, tiny_checkpoint, tiny_tracker, tmp_path, storage):
    out, other = tmp_path / "out", "80,40,30,30"
    result = run(walk, "--box", f"man={START}", "--box", other, "--model", tiny_checkpoint, "--device", "cpu",
                 "--out", out, "--storage", storage)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert f"{FRAMES} messages on /ckd_tracker/targets" in result.output.replace("\n", " ")

    sequence = open_sequence(walk)
    starts = [BOX, tuple(map(float, other.split(",")))]
    targets = [Target.begin(str(k), "", tiny_tracker.start(sequence.frame(0), box)) for k, box in enumerate(starts)]
    written = results(out)
    assert len(written) == FRAMES
    for index, (received_ns, message) in enumerate(written):
        assert received_ns == FIRST_NS + index * PERIOD_NS + 2 * LATE_NS
        stamp = message.header.stamp
        assert stamp.sec * 10**9 + stamp.nanosec == FIRST_NS + index * PERIOD_NS
        assert message.header.frame_id == "rgb_camera"
        assert (message.image_width, message.image_height, message.modalities) == (160, 120, 3)
        assert message.sync_offset == pytest.approx(0.003) and message.skipped_pairs == 0
        assert math.isnan(message.latency) and message.processing_time > 0
        boxes, confidences = starts, [1.0, 1.0]
        if index:
            targets = follow(tiny_tracker, targets, sequence.frame(index), LostSettings())
            boxes, confidences = zip(*((target.box, target.confidence) for target in targets), strict=True)
        assert [target.id for target in message.targets] == ["man", "2"]
        for target, box, confidence in zip(message.targets, boxes, confidences, strict=True):
            assert np.float32(box_of(target)).tobytes() == np.float32(box).tobytes()
            assert np.float32(target.confidence) == np.float32(confidence)
            thermal = target.thermal_box
            mapped = Registration().thermal_box(box, (160, 120), (160, 120))
            np.testing.assert_allclose([thermal.x, thermal.y, thermal.width, thermal.height], mapped, rtol=1e-6)


@pytest.mark.parametrize(
    "options", [["--start", "0.1"], ["--stamp", f"{FIRST_NS // 10**9}.{3 * PERIOD_NS:09d}"]], ids=["start", "stamp"]
)
def test_pairs_before_the_start_have_no_target(walk, tiny_checkpoint, tmp_path, options):
    result = run(walk, "--box", START, *options, "--model", tiny_checkpoint, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    messages = [message for _, message in results(tmp_path / "out")]
    assert [len(message.targets) for message in messages] == [0, 0, 0, 1, 1, 1]
    assert {message.image_width for message in messages} == {160}
    np.testing.assert_allclose(box_of(messages[3].targets[0]), BOX, rtol=1e-6)


def test_one_camera_that_stops_and_one_bad_image_are_told(tiny_tracker, tmp_path):
    sent = recording(20)
    sent[4].message.data = sent[4].message.data[:100]
    sent = [each for index, each in enumerate(sent) if index % 2 == 0 or index < 10]  # 5 thermal images, 20 RGB
    opened, cameras = ready(write(tmp_path / "walk", sent))
    with bag.ResultBag(tmp_path / "out") as out:
        report = bag.follow(tiny_tracker, opened, cameras, {"a": BOX}, out, PairingSettings())
    assert (report.messages, report.targets["a"].frames) == (4, 3)
    assert report.dropped == {"partner_silent": 5}  # the last ten still wait
    assert [message.skipped_pairs for _, message in results(tmp_path / "out")] == [0, 0, 1, 0]
    first, second = bag.remarks(report)
    assert "5 partner_silent" in first and "1, the first because of: truncated image" in second


def test_one_camera_alone_is_followed_and_told(tiny_checkpoint, tmp_path):
    """Thermal comes 20 frames behind RGB: boxes belong to the first pair, until then images go on alone."""
    late = write(tmp_path / "late", [each for index, each in enumerate(recording(30)) if index % 2 == 0 or index > 40])
    assert run(late, "--box", START, "--model", tiny_checkpoint, "--out", tmp_path / "a").exit_code == 0
    messages = [message for _, message in results(tmp_path / "a")]
    assert [message.modalities for message in messages] == [1] * 11 + [3] * 9
    assert [len(message.targets) for message in messages] == [0] * 11 + [1] * 9

    unstamped = recording(30)
    for each in unstamped[::2]:
        each.message.header.stamp.sec = each.message.header.stamp.nanosec = 0
    unstamped = write(tmp_path / "unstamped", unstamped)
    said = run(unstamped, "--box", START, "--model", tiny_checkpoint, "--out", tmp_path / "b")
    assert said.exit_code == 0
    said = " ".join(said.output.split())
    assert "20 thermal" in said and "in pixels of the thermal image, 160x120" in said
    messages = [message for _, message in results(tmp_path / "b")]
    assert {(message.modalities, message.image_width, len(message.targets)) for message in messages} == {(2, 160, 1)}
    assert not math.isnan(messages[0].targets[0].thermal_box.x)


def test_a_parameter_file_of_the_node_says_what_options_do_not(walk, tiny_checkpoint, tmp_path):
    params = tmp_path / "robot.yaml"
    params.write_text(
        f"/**:\n  ros__parameters:\n    model: {tiny_checkpoint}\n    sync.slop: 0.001\n"
        "    lost: {confidence: 1.0, recover: 1.0, after: 2}\n"
    )
    given = ("--box", START, "--params", params)
    assert "raise sync.slop" in run(walk, *given, "--out", tmp_path / "a").stderr
    assert run(walk, *given, "--slop", "0.02", "--out", tmp_path / "b").exit_code == 0
    states = [message.targets[0].state for _, message in results(tmp_path / "b")]
    assert states == [1, 2, 2] + [3] * (FRAMES - 3)


def test_what_came_before_the_damage_stays(tiny_checkpoint, tmp_path):
    path = write(tmp_path / "walk", recording(FRAMES))
    cut(path, 0.999)
    result = run(path, "--box", START, "--model", tiny_checkpoint, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "is damaged behind 11 images" in result.stderr and "Traceback" not in result.output
    assert len(results(tmp_path / "out")) == FRAMES - 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--box", "1,2,3"], "'1,2,3'; expected four numbers"),
        (["--box", "a=1,2,3,4"], "smaller than the smallest box"),
        (["--box", "a=9,9,9,9", "--box", "a=9,9,9,9"], "ids repeat"),
        (["--box", "9,9,9,9", "--rgb", "/nothing"], "no image topic '/nothing' for rgb"),
        (["--box", "9,9,9,9", "--start", "99"], "lies outside"),
        (["--box", "9,9,9,9", "--stamp", "1e9"], "--stamp '1e9'; expected seconds"),
        (["--box", "9,9,9,9", "--slop", "-1"], "slop is -1"),
        (["--box", "9,9,9,9", "--slop", "0.001"], "is +0.0030 s: raise sync.slop"),
        (["--box", "9,9,9,9", "--thermal-to-rgb", "1,2"], "nine numbers"),
        (["--box", "9,9,9,9", "--on-missing", "hope"], "on_missing is 'hope'; it has to be one of degrade, wait"),
        (["--box", "9,9,9,9", "--timeout", "0"], "modality.timeout is 0.0; it has to be a number from 0.01"),
        (["--box", "9,9,9,9", "--params", "nowhere.yaml"], "nowhere.yaml"),
        (["--box", "9,9,9,9", "--storage", "papyrus"], "'papyrus'; allowed: sqlite3, mcap"),
        (["--box", "9,9,9,9", "--model", "nonsense"], "no model 'nonsense'"),
    ],
)
def test_wrong_calls_are_refused_in_one_line_and_leave_nothing(walk, tiny_checkpoint, tmp_path, options, said):
    result = run(walk, "--model", tiny_checkpoint, "--out", tmp_path / "out", *options)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert result.stderr.startswith("error: ") and said in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_error_leaves_no_results_and_old_ones_are_never_touched(walk, tiny_tracker, tmp_path):
    opened, cameras = ready(walk)
    with pytest.raises(BoxError), bag.ResultBag(tmp_path / "out") as out:
        bag.follow(tiny_tracker, opened, cameras, {"a": (900, 0, 9, 9)}, out, PairingSettings(), first=2)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(BagError, match="out exists already"):
        bag.ResultBag(tmp_path / "out")


def test_a_recorded_bag_is_not_changed(walk):
    before = {file.name: file.read_bytes() for file in walk.iterdir()}
    opened, cameras = ready(walk)
    assert len(list(pairs(opened, cameras, PairingSettings().start()))) == FRAMES
    opened.close()
    assert {file.name: file.read_bytes() for file in walk.iterdir()} == before
    assert bag_files.TOPICS == cameras
