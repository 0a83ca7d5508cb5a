"""The real node on show: `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckd_tracker_ros.cli.options import FAILURE, INTERRUPTED, Device, Model, Track, app, fail, reported


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
    skip: Annotated[
        int, typer.Option(help="Pairs in a row that the node may skip; a slower one is waited for. 0: none; -1: any.")
    ] = 4,
) -> None:
    """Follow a target with the real node: player, node and client as processes over DDS."""
    from rich.console import Console

    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        fail(f"the demo needs ROS 2 ({error}): source a distribution, or type `make demo`")
    from ckd_tracker_ros.ros import demo as ros_demo

    options = ros_demo.Options(out, data, track, model, device, seconds, rate, seed, skip)
    try:
        with reported(ValueError, OSError):  # of the source and of the options
            ros_demo.run(options, Console())
    except ros_demo.DemoError as error:
        fail(error, FAILURE)
    except KeyboardInterrupt:
        fail("stopped", INTERRUPTED)
