"""`make bench`: every benchmark of speed, and the table of faults, one after the other, each with a JSON file."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

HERE = Path(__file__).parent
ROS = ("node", "reset", "dds", "faults")
"""Of the names below, those that need ROS 2."""
RUNS = {
    "runners": ["bench_runners.py"],
    "step": ["-m", "ckd_tracker_ros.cli", "bench"],
    "step_base": ["-m", "ckd_tracker_ros.cli", "bench", "--model", "base", "--targets", "1,2,4"],
    "pairing": ["bench_pairing.py"],
    "memory": ["bench_memory.py"],
    "node": ["bench_node.py"],
    "reset": ["bench_reset.py"],
    "dds": ["bench_dds.py"],
    "faults": ["faults.py"],
}
"""Name of the JSON file -> arguments of Python."""


def main(
    out: Annotated[Path, typer.Option(help="folder of the JSON files")] = Path("out/bench"),
    only: Annotated[str, typer.Option(help="names, with commas between")] = ",".join(RUNS),
) -> None:
    """Runs them; a benchmark that fails does not stop the others, but the command then fails."""
    names = only.split(",")
    if unknown := [name for name in names if name not in RUNS]:
        raise typer.BadParameter(f"--only {unknown[0]!r}; allowed: {', '.join(RUNS)}")
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in names:
        if name in ROS and not importlib.util.find_spec("rclpy"):
            typer.echo(f"== {name}: left out, needs ROS 2")
            continue
        first, *rest = RUNS[name]
        script = [str(HERE / first)] if first.endswith(".py") else [first]
        typer.echo(f"== {name}")
        began = time.monotonic()
        done = subprocess.run([sys.executable, *script, *rest, "--json", str(out / f"{name}.json")], check=False)
        typer.echo(f"{name}: {time.monotonic() - began:.0f} s")
        if done.returncode:
            failed.append(name)
    if failed:
        typer.echo(f"failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
