"""What the commands have in common: the group, options, their reading, and errors in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

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


def parse_stamp(text: str) -> int:
    """Nanoseconds of "seconds.fraction", to the last digit; anything else ends the command."""
    whole, _, fraction = text.partition(".")
    if not (whole + fraction).isdecimal() or not whole or len(fraction) > 9:
        fail(f"--stamp {text!r}; expected seconds, such as 1700000000.033333333")
    return int(whole + fraction.ljust(9, "0"))


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


def parse_names(text: str) -> list[str] | None:
    """Names separated by commas, or the lines of the file of that name; None for all."""
    if not text:
        return None
    is_file = os.path.isfile(text)  # unlike Path's, no error for a list that is too long for a file's name
    words = Path(text).read_text(encoding="utf-8-sig").splitlines() if is_file else text.split(",")
    return [word.strip() for word in words if word.strip()]


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
