"""Targets followed through recordings: `track` and `bag`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckd_tracker_ros.cli.options import (
    Device,
    Model,
    NodeDevice,
    Params,
    Precision,
    Reuse,
    Slop,
    ThermalDelay,
    ThermalToRgb,
    Track,
    app,
    fail,
    node_parameters,
    parse_box,
    parse_matrix,
    parse_stamp,
    reported,
)
from ckd_tracker_ros.modality import ModalitySettings
from ckd_tracker_ros.pairing import PairingSettings


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
