"""`ckd-tracker`: what the node does, without ROS, on recordings; weight files; the demo.

Every command imports what it needs when it runs, so that `--help` answers at once and `track` works without ROS.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

USAGE_ERROR, FAILURE, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    help="RGB-thermal target tracking. COMMAND --help lists what a command takes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Model = Annotated[str, typer.Option(help="Model file, or the name of an installed one.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Track = Annotated[str, typer.Option(help="Track of the source that is followed; default: its first.")]


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
    from ckd_tracker_ros.registration import RegistrationError
    from ckd_tracker_ros.sequences import SequenceError, open_sequence
    from ckd_tracker_ros.tracker import BoxError, Tracker

    console = Console()
    given = [parse_box(text) for text in box or []]
    expected = (CheckpointError, DeviceError, BoxError, RegistrationError, SequenceError, run.StartError, VideoError)
    with reported(*expected, OSError):
        sequence = open_sequence(source, track or None)
        frame, starts = run.starts(sequence, given, start)
        tracker = Tracker.from_checkpoint(model, device, precision, threads)
        console.print(", ".join(f"{key} {value}" for key, value in tracker.description.items()))
        followed = run.follow(tracker, sequence, frame, starts, out, sequence.rate if video else None, console)
    console.print(run.summary(followed))
    console.print(f"results: {out}", soft_wrap=True)


def parse_box(text: str) -> tuple[float, ...]:
    """The four numbers of "x,y,w,h"; anything else ends the command."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 4:
        fail(f"--box {text!r}; expected four numbers x,y,w,h in RGB pixels, such as 120,80,40,90")
    return values


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
