"""A model of one's own: `train`, `evaluate` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckd_tracker_ros.cli.options import FAILURE, INTERRUPTED, Device, Model, Names, app, fail, parse_names, reported


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
