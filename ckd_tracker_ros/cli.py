"""`ckd-tracker`: what the node does, without ROS, on recordings; weight files; the demo.

Every command imports what it needs when it runs, so that `--help` answers at once and `track` works without ROS.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ckd_tracker_ros.modality import ModalitySettings
from ckd_tracker_ros.pairing import PairingSettings

USAGE_ERROR, FAILURE, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    help="RGB-thermal target tracking. COMMAND --help lists what a command takes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Model = Annotated[str, typer.Option(help="Model file, or the name of an installed one.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N; tensorrt for an .onnx model.")]
Params = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Parameter file of the node; options given here go before it.")
]
ThermalToRgb = Annotated[str, typer.Option(metavar="NUMBERS", help="As registration.thermal_to_rgb: nine.")]
# Options that stand for one of the node's parameters: without them --params says it, or the node's own default.
Slop = Annotated[
    float | None, typer.Option(help="As sync.slop of the node [s].", show_default=str(PairingSettings.slop))
]
ThermalDelay = Annotated[
    float | None, typer.Option(help="As sync.thermal_delay [s].", show_default=str(PairingSettings.thermal_delay))
]
Reuse = Annotated[bool | None, typer.Option("--reuse/--no-reuse", help="As sync.reuse.", show_default="no-reuse")]
NodeDevice = Annotated[str | None, typer.Option(help="As device.", show_default="auto")]
Precision = Annotated[str | None, typer.Option(help="As precision.", show_default="auto")]
Track = Annotated[str, typer.Option(help="Track of the source that is followed; default: its first.")]

Names = Annotated[str, typer.Option(help="Sequences: names with commas between, or a file of lines. Default: all.")]


def main() -> None:
    """The console script."""
    app()


def fail(message: object, code: int = USAGE_ERROR) -> NoReturn:
    """Ends the command with one message on stderr."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


@contextmanager
def reported(*expected: type[Exception]) -> Iterator[None]:
    """Expected errors end the command with their message in one line; others are bugs and keep their traceback."""
    try:
        yield
    except expected as error:
        fail(" ".join(str(error).split()))


@app.callback()
def _group() -> None:
    """Keeps `ckd-tracker` a group of commands, however few there are."""


@app.command()
def track(
    source: Annotated[Path, typer.Argument(help="Folder or video.")],
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y,W,H", help="Start box, RGB pixels; repeatable. Default: the track's."),
    ] = None,
    track: Track = "",
    start: Annotated[int | None, typer.Option(help="Frame of the boxes. Default: the track's first, else 0.")] = None,
    model: Model = "ckd_tiny",
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="Number format of the network.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of the network; 0: torch's choice.")] = 0,
    thermal_to_rgb: ThermalToRgb = "",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/track"),
    video: Annotated[bool, typer.Option("--video", help="Also write overlay.mp4, RGB with thermal beside it.")] = False,
) -> None:
    """Follow targets through a recording.

    SOURCE is a folder with visible/ and infrared/ (groundtruth.txt optional), a folder of NAME_visible.mp4 and
    NAME_infrared.mp4 (tracks.json optional), a sequence of GTOT, RGBT210, RGBT234, LasHeR or VTUAV, or images or a
    video of one camera.

    Writes NAME.txt for each target (x,y,w,h per line, RGB pixels, one line per frame from the start frame on, the first
    one the start box) and results.csv (frame, target, x, y, width, height, confidence, status, iou; status as in
    TrackedTarget.msg, iou empty where no truth is known). Prints the mean IoU where there is truth, without the frames
    before and of the start.
    """
    from rich.console import Console

    from ckd_tracker_ros.engine import DeviceError
    from ckd_tracker_ros.evaluation import run
    from ckd_tracker_ros.network.checkpoint import CheckpointError
    from ckd_tracker_ros.overlay import VideoError
    from ckd_tracker_ros.registration import Registration, RegistrationError
    from ckd_tracker_ros.sequences import SequenceError, open_sequence
    from ckd_tracker_ros.tracker import BoxError, Tracker, TrackerSettings

    console = Console()
    matrix = parse_matrix(thermal_to_rgb)
    given = [parse_box(text) for text in box or []]
    expected = (CheckpointError, DeviceError, BoxError, RegistrationError, SequenceError, run.StartError, VideoError)
    with reported(*expected, OSError):
        sequence = open_sequence(source, track or None)
        frame, starts = run.starts(sequence, given, start)
        registered = TrackerSettings(registration=Registration(matrix))
        tracker = Tracker.from_checkpoint(model, device, precision, threads, registered)
        console.print(", ".join(f"{key} {value}" for key, value in tracker.description.items()))
        followed = run.follow(tracker, sequence, frame, starts, out, sequence.rate if video else None, console)
    console.print(run.summary(followed))
    console.print(f"results: {out}", soft_wrap=True)


def parse_box(text: str) -> tuple[float, ...]:
    """The four numbers of "x,y,w,h"; anything else ends the command."""
    return parse_numbers("--box", text, 4, "four numbers x,y,w,h in RGB pixels, such as 120,80,40,90")


def parse_numbers(option: str, text: str, count: int, expected: str) -> tuple[float, ...]:
    """Numbers separated by commas; anything else ends the command."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        fail(f"{option} {text!r}; expected {expected}")
    return values


def parse_matrix(text: str) -> tuple[float, ...] | None:
    """The nine numbers of --thermal-to-rgb, None without; anything else ends the command."""
    return parse_numbers("--thermal-to-rgb", text, 9, "nine numbers, row major") if text else None


@app.command()
def bag(
    source: Annotated[Path, typer.Argument(metavar="BAG", help="rosbag2 folder, or a .db3 or .mcap file.")],
    box: Annotated[
        list[str],
        typer.Option(metavar="[ID=]X,Y,W,H", help="Start box, RGB pixels; repeatable. Ids default to 1, 2, ..."),
    ],
    rgb: Annotated[str, typer.Option(metavar="TOPIC", help="Default: by its name.")] = "",
    thermal: Annotated[str, typer.Option(metavar="TOPIC", help="Default: by its name.")] = "",
    start: Annotated[float, typer.Option(help="Pair of the boxes, seconds after the first one.")] = 0.0,
    stamp: Annotated[str, typer.Option(metavar="SECONDS", help="Or: RGB stamp of the image of the boxes.")] = "",
    params: Params = None,
    slop: Slop = None,
    queue_size: Annotated[
        int | None, typer.Option(help="As sync.queue_size.", show_default=str(PairingSettings.queue_size))
    ] = None,
    thermal_delay: ThermalDelay = None,
    reuse: Reuse = None,
    timeout: Annotated[
        float | None, typer.Option(help="As modality.timeout [s].", show_default=str(ModalitySettings.timeout))
    ] = None,
    on_missing: Annotated[
        str | None, typer.Option(help="As modality.on_missing.", show_default=ModalitySettings.on_missing)
    ] = None,
    thermal_to_rgb: ThermalToRgb = "",
    model: Annotated[
        str | None, typer.Option(help="As model: a file or an installed one.", show_default="ckd_tiny")
    ] = None,
    device: NodeDevice = None,
    precision: Precision = None,
    threads: Annotated[int | None, typer.Option(min=0, help="As threads.", show_default="0")] = None,
    out: Annotated[Path, typer.Option(help="Bag to write, a new folder.")] = Path("out/bag"),
    storage: Annotated[str, typer.Option(help="sqlite3 or mcap.")] = "sqlite3",
) -> None:
    """Follow targets through a recorded bag as the node would, and write its messages to a new bag. Needs no ROS.

    The same pairs as the node's, the same boxes; no pair is skipped because of time. What neither an option nor
    --params says is as the node has it without parameters (config/tracker.yaml). OUT has /ckd_tracker/targets
    (TrackedTargetArray), one message for each pair, with the RGB image's stamp and frame id.
    """
    from rich.console import Console

    from ckd_tracker_ros import bag as bags
    from ckd_tracker_ros.engine import DeviceError
    from ckd_tracker_ros.network.checkpoint import CheckpointError
    from ckd_tracker_ros.sequences.bags import Bag
    from ckd_tracker_ros.tracker import Tracker

    console = Console()
    named = [text.rpartition("=") for text in box]
    starts = {name or str(number): parse_box(text) for number, (name, _, text) in enumerate(named, 1)}
    if len(starts) < len(box):
        fail(f"--box: ids repeat in {', '.join(box)}; each target needs its own")
    node = node_parameters(
        params,
        sync_slop=slop,
        sync_queue_size=queue_size,
        sync_thermal_delay=thermal_delay,
        sync_reuse=reuse,
        modality_timeout=timeout,
        modality_on_missing=on_missing,
        registration_thermal_to_rgb=parse_matrix(thermal_to_rgb),
        model=model,
        device=device,
        precision=precision,
        threads=threads,
    )
    stamp_ns = parse_stamp(stamp) if stamp else 0
    with reported(CheckpointError, DeviceError, ValueError, OSError), Bag(source) as recorded:
        cameras = recorded.cameras(rgb, thermal)
        settings = node.pairing_settings
        first = bags.find_start(recorded, cameras, settings, start, stamp_ns)
        tracker = Tracker.from_checkpoint(node.model, node.device, node.precision, node.threads, node.tracker_settings)
        console.print(", ".join(f"{key} {value}" for key, value in tracker.description.items()))
        console.print(f"rgb {cameras[0]}, thermal {cameras[1]}", soft_wrap=True)
        with bags.ResultBag(out, storage) as results:
            report = bags.follow(
                tracker,
                recorded,
                cameras,
                starts,
                results,
                settings,
                first,
                console,
                node.modality_settings,
                node.lost_settings,
            )
    console.print(bags.summary(report))
    for line in (*bags.remarks(report), f"results: {out}, {report.messages} messages on {bags.TOPIC}"):
        console.print(line, soft_wrap=True)


def node_parameters(file: Path | None, **given: Any) -> Any:
    """`Parameters`: the node's from a file, with those that were given as options (None: not) in their place."""
    from ckd_tracker_ros.parameters import NO_SIZES, RULES, ParameterError, Parameters, read_yaml

    given = {name: value for name, value in given.items() if value is not None}
    if "registration_thermal_to_rgb" in given:  # the file's sizes belong to the file's homography
        given["registration_sizes"] = NO_SIZES
    if problem := next(filter(None, (RULES[name].problem(value) for name, value in given.items())), ""):
        fail(problem)
    with reported(ParameterError, OSError):
        node = replace(read_yaml(file) if file else Parameters(), **given)
        if node.sync_policy != "nearest":
            fail(f"sync.policy is {node.sync_policy}; without ROS there is only nearest")
    return node


def parse_stamp(text: str) -> int:
    """Nanoseconds of "seconds.fraction", to the last digit; anything else ends the command."""
    whole, _, fraction = text.partition(".")
    if not (whole + fraction).isdecimal() or not whole or len(fraction) > 9:
        fail(f"--stamp {text!r}; expected seconds, such as 1700000000.033333333")
    return int(whole + fraction.ljust(9, "0"))


@app.command()
def doctor(
    source: Annotated[
        Path | None, typer.Argument(metavar="[BAG]", help="rosbag2 folder or file. Default: the live graph.")
    ] = None,
    rgb: Annotated[str, typer.Option(metavar="TOPIC", help="Default: rgb/image_raw; in a bag by its name.")] = "",
    thermal: Annotated[str, typer.Option(metavar="TOPIC", help="Default: thermal/image_raw, or by its name.")] = "",
    seconds: Annotated[float, typer.Option(min=0, help="How much is looked at. Default: 10 live, 30 of a bag.")] = 0.0,
    params: Params = None,
    slop: Slop = None,
    thermal_delay: ThermalDelay = None,
    reuse: Reuse = None,
    thermal_to_rgb: ThermalToRgb = "",
    reliability: Annotated[
        str | None, typer.Option(help="As qos.reliability: auto, reliable, best_effort.", show_default="auto")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help='As model; "": model and device are not looked at.', show_default="ckd_tiny")
    ] = None,
    device: NodeDevice = None,
    precision: Precision = None,
    json: Annotated[bool, typer.Option("--json", help="For machines: findings and what was measured.")] = False,
) -> None:
    """Say what is wrong with two cameras, live or in a bag, and what to set.

    Prints a line for each finding, what blocks first, or "nothing wrong"; what was measured goes to stderr. The exit
    code is 0 when nothing is wrong (remarks do not count), 1 when something is. Move the cameras while it looks: their
    delay is found by the motion of their images.
    """
    from rich.console import Console

    from ckd_tracker_ros import doctor as doctors
    from ckd_tracker_ros.doctor import machine, recorded

    node = node_parameters(
        params,
        sync_slop=slop,
        sync_thermal_delay=thermal_delay,
        sync_reuse=reuse,
        registration_thermal_to_rgb=parse_matrix(thermal_to_rgb),
        qos_reliability=reliability,
        model=model,
        device=device,
        precision=precision,
    )
    pairing = replace(node.pairing_settings, timeout=None)  # a camera that is silent is a finding
    with reported(ValueError, OSError):
        settings = doctors.Settings(pairing, node.tracker_settings.registration, node.qos_reliability)
        if source is not None:
            setup = recorded.look(source, (rgb, thermal), seconds, settings)
        else:
            setup = _observe((rgb or "rgb/image_raw", thermal or "thermal/image_raw"), seconds, settings)
    if node.model:
        setup = replace(setup, machine=machine.look(node.model, node.device, node.precision))
    findings = doctors.examine(setup)
    if json:
        typer.echo(doctors.as_json(setup, findings))
    else:
        Console(stderr=True).print(doctors.table(setup))
        for line in doctors.as_text(findings):
            typer.echo(line)
    if not doctors.is_healthy(findings):
        raise typer.Exit(FAILURE)


def _observe(topics: tuple[str, str], seconds: float, settings: Any) -> Any:
    """The live graph as the doctor sees it; where there is no ROS, the command ends."""
    try:
        from ckd_tracker_ros.ros import observe
    except ImportError as error:
        fail(f"a live graph needs ROS 2 ({error}): source a distribution, or name a bag")
    typer.echo(f"looking at {topics[0]} and {topics[1]}; move the cameras a little", err=True)
    return observe.look(topics, seconds, settings)


@app.command()
def calibrate(
    source: Annotated[
        Path | None, typer.Argument(help="Recording of both cameras, as for track, or a bag. Default: the live graph.")
    ] = None,
    track: Track = "",
    rgb: Annotated[str, typer.Option(metavar="TOPIC", help="Default: rgb/image_raw; in a bag by its name.")] = "",
    thermal: Annotated[str, typer.Option(metavar="TOPIC", help="Default: thermal/image_raw, or by its name.")] = "",
    pairs: Annotated[int, typer.Option(min=1, max=200, help="Pairs that are looked at.")] = 16,
    seconds: Annotated[float, typer.Option(min=0.1, help="Live: that they are spread over.")] = 10.0,
    model: Annotated[str, typer.Option(help="similarity, affine, homography; auto: as rich as the images allow.")] = (
        "auto"
    ),
    slop: Annotated[float, typer.Option(help="As sync.slop of the node [s].")] = PairingSettings.slop,
    thermal_delay: Annotated[float, typer.Option(help="As sync.thermal_delay [s].")] = PairingSettings.thermal_delay,
    out: Annotated[Path, typer.Option(help="Folder for registration.yaml and overlay.png.")] = Path("out/calibrate"),
) -> None:
    """Find registration.thermal_to_rgb from a recording or a live graph, without a checkerboard.

    Both cameras have to see one scene with edges in light and in heat; things that move help. Looks for scales from a
    half to double, rotations up to 15 degrees, shifts up to a quarter of the image. Writes parameters for the node
    and a picture of the thermal edges on the RGB image, before and after. Where the images say too little nothing is
    written, and the exit code is 1.
    """
    import cv2
    from rich.console import Console

    from ckd_tracker_ros import alignment

    console = Console()
    with reported(ValueError, OSError):
        pairing = PairingSettings(slop, thermal_delay=thermal_delay)
        pairing.start()
        if source is None:
            frames = _gather((rgb or "rgb/image_raw", thermal or "thermal/image_raw"), pairs, seconds, pairing)
        else:
            frames = alignment.spread_pairs(source, pairs, track, (rgb, thermal), pairing)
        try:
            found = alignment.estimate(frames, model)
        except alignment.AlignmentError as error:
            fail(error, FAILURE)
        console.print(alignment.table(found))
        out.mkdir(parents=True, exist_ok=True)
        file, picture = out / "registration.yaml", out / "overlay.png"
        file.write_text(alignment.as_yaml(found, source.name if source else "a live graph"), encoding="utf-8")
        picture.write_bytes(cv2.imencode(".png", alignment.overlay(frames[len(frames) // 2], found))[1].tobytes())
    for line in (*alignment.as_text(found), f"written: {file} (params_file:= of the launch file), {picture}"):
        console.print(line, soft_wrap=True)


def _gather(topics: tuple[str, str], pairs: int, seconds: float, pairing: PairingSettings) -> list[Any]:
    """Pairs of the live graph; where there is no ROS, or nothing comes, the command ends."""
    try:
        from ckd_tracker_ros.ros import gather
    except ImportError as error:
        fail(f"a live graph needs ROS 2 ({error}): source a distribution, or name a recording")
    typer.echo(f"looking at {topics[0]} and {topics[1]}; move the cameras, or let something move", err=True)
    try:
        return gather.gather(topics, pairs, seconds, gather.Settings(pairing))
    except gather.GatherError as error:
        fail(error, FAILURE)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Published CKD, OSTrack, DropTrack, MAE or timm file.")],
    destination: Annotated[Path, typer.Argument(help="safetensors file to write.")],
    network: Annotated[str, typer.Option(help="Network to make: base or ckd_tiny.")] = "base",
    allow_fresh: Annotated[
        bool, typer.Option("--allow-fresh", help="Accept parameters that the file does not hold.")
    ] = False,
    allow_unused: Annotated[
        bool, typer.Option("--allow-unused", help="Accept tensors that have no place in the network.")
    ] = False,
) -> None:
    """Turn a published checkpoint into a model file. Nothing in the file is executed."""
    from ckd_tracker_ros.network.checkpoint import CheckpointError
    from ckd_tracker_ros.network.config import CONFIGS
    from ckd_tracker_ros.network.convert import convert as convert_file

    if network not in CONFIGS:
        fail(f"--network {network!r}; allowed: {', '.join(CONFIGS)}")
    with reported(CheckpointError, OSError):
        report = convert_file(source, destination, CONFIGS[network], allow_fresh=allow_fresh, allow_unused=allow_unused)
    typer.echo(f"{destination}: {network} from a {report.kind} file, {destination.stat().st_size / 1e6:.1f} MB")
    for title, names in (("initial values kept", report.fresh), ("left out", report.unused)):
        typer.echo(f"{title}: {len(names)}" + "".join(f"\n  {name}" for name in names))


@app.command()
def export(
    destination: Annotated[Path, typer.Argument(help="File to write, NAME.onnx.")],
    model: Model = "ckd_tiny",
) -> None:
    """Turn a model file into one ONNX file: elimination inside, any number of targets, crops in and maps out.

    It is a MODEL for every command and for the node, run by ONNX Runtime: on the CPU, by CUDA, or by TensorRT
    (device tensorrt).
    """
    from ckd_tracker_ros.network import export as exporting
    from ckd_tracker_ros.network.checkpoint import CheckpointError

    with reported(CheckpointError, exporting.ExportError, OSError):
        exporting.export(model, destination)
    typer.echo(f"{destination}: {destination.stat().st_size / 1e6:.1f} MB, opset {exporting.OPSET}")


@app.command()
def bench(
    model: Annotated[str, typer.Option(help="As elsewhere; or base, with random weights.")] = "ckd_tiny",
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="Of all tables but the first, which has every one.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of the network; 0: torch's choice.")] = 0,
    targets: Annotated[str, typer.Option(help="Numbers of targets.")] = "1,2,4,8,16,32",
    sizes: Annotated[str, typer.Option(help="Of the RGB image; the first is the baseline.")] = (
        "320x240,640x480,1920x1080"
    ),
    seconds: Annotated[float, typer.Option(min=0, help="For all tables together.")] = 40.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
) -> None:
    """Measure the tracker on this machine: whole steps, from images to boxes, by runner, number of targets, image size.

    Each case is measured in turn with its baseline. On a busy machine believe ratios, not times.
    """
    from ckd_tracker_ros.engine import DeviceError
    from ckd_tracker_ros.evaluation import speed
    from ckd_tracker_ros.network.checkpoint import CheckpointError

    counts, image_sizes = parse_counts(targets), parse_sizes(sizes)
    with reported(CheckpointError, DeviceError, OSError):
        speed.bench(model, device, precision, threads, counts, image_sizes, seconds).write(json_file)


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """`640x480,1280x720` as (width, height); anything else ends the command."""
    try:
        sizes = [tuple(map(int, size.split("x"))) for size in text.split(",")]
    except ValueError:
        sizes = [()]
    if any(len(size) != 2 or min(size) < 16 for size in sizes):
        fail(f"sizes {text!r}; expected WIDTHxHEIGHT of at least 16, separated by commas")
    return sizes


def parse_counts(text: str) -> list[int]:
    """`1,2,4` as numbers above zero; anything else ends the command."""
    if not all(word.strip().isdecimal() and int(word) for word in text.split(",")):
        fail(f"counts {text!r}; expected whole numbers above 0, separated by commas")
    return [int(word) for word in text.split(",")]


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="YAML file, or the name of an installed one, such as smoke.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. Default: out/train/NAME.")] = None,
    device: Device = "auto",
    minutes: Annotated[float, typer.Option(min=0, help="Stop after that long; 0: no limit.")] = 0.0,
) -> None:
    """Train a student; goes on where OUT stopped. Several GPUs: torchrun ... -m ckd_tracker_ros.cli train CONFIG."""
    import logging

    from rich.console import Console

    from ckd_tracker_ros.engine import DeviceError
    from ckd_tracker_ros.network.checkpoint import CheckpointError
    from ckd_tracker_ros.training import config as settings
    from ckd_tracker_ros.training import data, loop

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    expected = (settings.ConfigError, data.DataError, DeviceError, CheckpointError, data.SequenceError, OSError)
    with reported(*expected):
        chosen = settings.load_config(config, changes)
        folder = out or Path("out/train") / chosen.name
        try:
            outcome = loop.train(chosen, folder, device, minutes, Console())
        except loop.TrainingError as error:
            fail(error, FAILURE)
    typer.echo(f"{outcome.reason} at step {outcome.step}: {folder}")
    if outcome.reason == "stopped":
        raise typer.Exit(INTERRUPTED)


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(help="Data set: benchmark, folder of sequences, or videos with tracks.json.")],
    out: Annotated[Path, typer.Option(help="Folder for the results of this one model.")],
    kind: Annotated[str, typer.Option(help="Kind of data set, where its layout does not say.")] = "",
    names: Names = "",
    model: Model = "ckd_tiny",
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="Number format of the network.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of each process; 0: the cores shared out.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Sequences at a time.")] = 1,
    modality: Annotated[str, typer.Option(help="rgb, thermal or both: the cameras to use.")] = "both",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove results of an earlier run first.")] = False,
) -> None:
    """Run the tracker over all sequences of a data set, each from its first true box.

    Writes NAME.txt (x,y,w,h per frame, RGB pixels, the start box first), NAME_confidence.txt, NAME_time.txt (seconds of
    the tracker) and run.json (what produced them). Started again it goes on with the sequences that are not done. A
    sequence that fails is told, noted in errors.log and makes the exit code 1; the others go on.
    """
    from rich.console import Console

    from ckd_tracker_ros.engine import DeviceError
    from ckd_tracker_ros.evaluation import batch, provenance
    from ckd_tracker_ros.network.checkpoint import CheckpointError, find_model
    from ckd_tracker_ros.sequences import KINDS, SequenceError, open_data_set

    console = Console()
    if kind not in ("", *KINDS):
        fail(f"--kind {kind!r}; allowed: {', '.join(KINDS)}")
    if modality not in batch.MODALITY_CHOICES:
        fail(f"--modality {modality!r}; allowed: {', '.join(batch.MODALITY_CHOICES)}")
    with reported(CheckpointError, DeviceError, SequenceError, provenance.MixedResultsError, OSError):
        sequences = open_data_set(data, kind or None, parse_names(names))
        job = batch.Job(model, device, precision, batch.threads_for(processes, threads), modality, out)
        tracker, file = job.tracker(), find_model(model)
        run = provenance.describe(file, tracker.description["model"], tracker.description, modality, data)
        provenance.claim(out, run, overwrite)
    waiting = [sequence for sequence in sequences if not batch.is_done(out, sequence.name)]
    console.print(", ".join(f"{key} {value}" for key, value in tracker.description.items()))
    console.print(f"{len(sequences)} sequences, {len(sequences) - len(waiting)} done before")
    outcomes = batch.evaluate(job, waiting, processes, tracker, console)
    frames, seconds = (sum(getattr(each, what) for each in outcomes) for what in ("frames", "seconds"))
    rate = f", {1000 * seconds / frames:.1f} ms a frame" if frames else ""
    console.print(f"results: {out}: {frames} frames{rate}", soft_wrap=True)
    if failed := [each.name for each in outcomes if each.error]:
        fail(f"{len(failed)} of {len(sequences)} sequences failed: {', '.join(failed)}", FAILURE)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="Folders of NAME.txt, one folder for each tracker.")],
    data: Annotated[Path, typer.Option(help="The data set that they are results of.")],
    kind: Annotated[str, typer.Option(help="lasher, rgbt234, rgbt210, gtot, vtuav, or plain for the mean IoU.")] = "",
    names: Names = "",
    out: Annotated[Path, typer.Option(help="Folder for report.json and the plots.")] = Path("out/report"),
    plots: Annotated[bool, typer.Option(help="Success and precision plots; need matplotlib.")] = True,
) -> None:
    """Score the results of trackers, side by side, as the benchmark of the data set does.

    Results may be any tracker's: lines of x,y,w,h (commas, tabs or blanks), one for each frame from the start frame on.
    Flags in attributes/ of the data set (or AttriSeqsTxt/, attr_txt/, as LasHeR and RGBT234 have them) give a row each.
    """
    from rich.console import Console

    from ckd_tracker_ros.evaluation import attributes
    from ckd_tracker_ros.evaluation import report as reporting
    from ckd_tracker_ros.sequences import KINDS, SequenceError, open_data_set

    console = Console()
    if kind not in ("", *reporting.REPORT_KINDS):
        fail(f"--kind {kind!r}; allowed: {', '.join(reporting.REPORT_KINDS)}")
    with reported(reporting.ReportError, attributes.AttributeFileError, SequenceError, OSError):
        sequences = open_data_set(data, kind if kind in KINDS else None, parse_names(names))
        kind = kind or reporting.protocol_kind(sequences)
        flagged = attributes.read_attributes(data, [sequence.name for sequence in sequences])
        reports = [reporting.score(folder, sequences, kind, flagged) for folder in results]
        reporting.tell_apart(reports, results)
        out.mkdir(parents=True, exist_ok=True)
        files = [out / "report.json"]
        files[0].write_text(reporting.as_json(reports, kind, data.resolve().name), encoding="utf-8")
    for table in reporting.tables(reports, kind):
        console.print(table)
    if plots:
        try:
            files += reporting.plot(reports, kind, out)
        except ImportError as error:
            fail(f"plots need matplotlib ({error}); without them: --no-plots", FAILURE)
    console.print("written: " + ", ".join(str(file) for file in files), soft_wrap=True)


def parse_names(text: str) -> list[str] | None:
    """Names separated by commas, or the lines of the file of that name; None for all."""
    if not text:
        return None
    is_file = os.path.isfile(text)  # unlike Path's, no error for a list that is too long for a file's name
    words = Path(text).read_text(encoding="utf-8-sig").splitlines() if is_file else text.split(",")
    return [word.strip() for word in words if word.strip()]


@app.command()
def demo(
    data: Annotated[str, typer.Option(help="Folder or video to play; default: a generated scene.")] = "",
    track: Track = "",
    model: Model = "ckd_tiny",
    device: Device = "auto",
    seconds: Annotated[float, typer.Option(help="Length.")] = 15.0,
    out: Annotated[Path, typer.Option(help="Folder for video, plot, table and logs.")] = Path("out/demo"),
    rate: Annotated[float, typer.Option(help="Pairs per second; 0: as recorded, 30 for the scene.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the generated scene.")] = 0,
    lock_step: Annotated[
        bool, typer.Option("--lock-step", help="Send each pair after the result of the one before: none is skipped.")
    ] = False,
) -> None:
    """Follow a target with the real node: player, node and client as processes over DDS."""
    from rich.console import Console

    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        fail(f"the demo needs ROS 2 ({error}): source a distribution, or type `make demo`")
    from ckd_tracker_ros.ros import demo as ros_demo

    options = ros_demo.Options(out, data, track, model, device, seconds, rate, seed, lock_step)
    try:
        with reported(ValueError, OSError):  # of the source and of the options
            ros_demo.run(options, Console())
    except ros_demo.DemoError as error:
        fail(error, FAILURE)
    except KeyboardInterrupt:
        fail("stopped", INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
