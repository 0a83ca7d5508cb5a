"""Two cameras that are set up: `doctor` and `calibrate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ckd_tracker_ros.cli.options import (
    FAILURE,
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
    parse_matrix,
    reported,
)
from ckd_tracker_ros.pairing import PairingSettings


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
