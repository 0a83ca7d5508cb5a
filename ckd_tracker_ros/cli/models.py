"""Weight files and their speed: `convert`, `export` and `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckd_tracker_ros.cli.options import Device, Model, app, fail, parse_counts, parse_sizes, reported


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
