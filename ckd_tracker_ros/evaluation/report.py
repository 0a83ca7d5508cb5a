"""Result files of one or several trackers to numbers: tables, JSON, plots. Runs no tracker, needs no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence as Many
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ckd_tracker_ros.evaluation import provenance
from ckd_tracker_ros.evaluation.metrics import PROTOCOLS, Protocol, Score, frame_values, summarize
from ckd_tracker_ros.sequences import LazySequence, Sequence, SequenceError
from ckd_tracker_ros.sequences.benchmarks import BENCHMARKS, INIT, read_rows

PLAIN = "plain"
REPORT_KINDS = tuple(PROTOCOLS)

Numbers = dict[str, float]
"""By metric."""


class ReportError(ValueError):
    """Results that cannot be scored; names the file, the line, and what is expected."""


@dataclass(eq=False)
class TrackerReport:
    """What one tracker has reached.

    Attributes:
        name: of its folder.
        scores: by metric, over all sequences.
        attributes: attribute -> numbers over its sequences.
        sequences: sequence -> its numbers.
        run: what produced the results, where they say so.
    """

    name: str
    scores: dict[str, Score]
    attributes: dict[str, Numbers]
    sequences: dict[str, Numbers]
    run: dict[str, Any] | None


def protocol_kind(sequences: Many[LazySequence]) -> str:
    """Which of `REPORT_KINDS` a data set is: its benchmark, or `plain` for recordings of no benchmark.

    Raises:
        ReportError: several benchmarks have this layout, or the sequences are of more than one kind.
    """
    kinds = {sequence.kind if sequence.kind in (*BENCHMARKS, None) else PLAIN for sequence in sequences}
    if None in kinds or len(kinds) != 1:
        found = ", ".join(sorted(str(kind or "a layout of several benchmarks") for kind in kinds))
        raise ReportError(f"the sequences are of {found}; say how to score: --kind {', '.join(REPORT_KINDS)}")
    return str(kinds.pop())


def read_result(file: Path) -> NDArray[np.float64]:
    """(m, 4) xywh from a text file, numbers separated by commas, tabs or blanks.

    Raises:
        ReportError: it is missing, empty, or a line is not four finite numbers; names the line.
    """
    try:
        rows = read_rows(file)
    except SequenceError as error:
        raise ReportError(str(error)) from error
    if rows is None or not len(rows):
        raise ReportError(f"{file} is {'missing' if rows is None else 'empty'}; expected: a line x,y,w,h per frame")
    if not np.isfinite(rows).all():
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        filled = [(number, line) for number, line in enumerate(lines, 1) if line.strip(", \t")]
        number, line = filled[int(np.argmin(np.isfinite(rows).all(axis=1)))]
        raise ReportError(f"{file}, line {number} is {line!r}; expected: four finite numbers")
    return rows


def annotated_rows(result: NDArray, sequence: Sequence, file: Path, longer: bool) -> NDArray:
    """The rows of the annotated frames.

    A result has a row for each frame from the start frame on, or for each annotated frame.

    Args:
        longer: rows behind the last frame are left out, as the benchmarks' own programs do.

    Raises:
        ReportError: another number of rows.
    """
    wanted = sequence.annotated - sequence.annotated[0]
    most = len(sequence) - int(sequence.annotated[0])
    if len(result) == len(wanted):
        return result
    if wanted[-1] < len(result) and (longer or len(result) <= most):
        return result[wanted]
    expected = " or ".join(dict.fromkeys([f"{len(wanted)} (annotated frames)", f"{wanted[-1] + 1} to {most} (frames)"]))
    raise ReportError(f"{file} has {len(result)} rows; expected for {sequence.name}: {expected}")


def _truths(sequence: LazySequence, protocol: Protocol, kind: str) -> list[NDArray]:
    """The true boxes that the protocol compares with, visible first."""
    used = list(sequence.truths[: protocol.truths])
    if kind == PLAIN:
        used = [truth for truth in sequence.truths if truth is not None][:1]
    elif kind == "rgbt210":
        # Its one published truth; in most sequences it differs from the visible.txt that came with RGBT234.
        init = read_rows(sequence.path / INIT)
        used = used if init is None or len(init) < len(sequence.annotated) else [init[: len(sequence.annotated)]]
    found = [truth for truth in used if truth is not None]
    if len(found) < protocol.truths or not len(sequence.annotated):
        which = "visible and infrared truth" if protocol.truths == 2 else "true boxes"
        raise ReportError(f"{sequence.name} has no {which}, which {kind} is scored with")
    if not np.isfinite(found).all() and kind not in (PLAIN, "vtuav"):
        raise ReportError(f"{sequence.name} has true boxes that are not finite, which {kind} does not know")
    return found


def score(
    results: Path, sequences: Many[LazySequence], kind: str, attributes: dict[str, list[str]] | None = None
) -> TrackerReport:
    """One tracker's folder, with a file `<sequence>.txt` for each sequence.

    Args:
        kind: one of `REPORT_KINDS`.
        attributes: attribute -> its sequences.

    Raises:
        ReportError, SequenceError: results or truth that cannot be used.
    """
    if not results.is_dir():
        raise ReportError(f"{results} is no folder; expected: a folder with a file <sequence>.txt for each sequence")
    missing = [sequence.name for sequence in sequences if not (results / f"{sequence.name}.txt").is_file()]
    if missing:
        listed = ", ".join(f"{name}.txt" for name in missing[:8]) + f" and {len(missing) - 8} more" * (len(missing) > 8)
        raise ReportError(f"{results} lacks {len(missing)} of {len(sequences)} sequences: {listed}")
    try:
        run = provenance.read(results)
    except provenance.MixedResultsError as error:
        raise ReportError(str(error)) from error
    protocol, values = PROTOCOLS[kind], {}
    for sequence in sequences:
        file = results / f"{sequence.name}.txt"
        truths = _truths(sequence, protocol, kind)
        rows = annotated_rows(read_result(file), sequence, file, longer=kind not in (PLAIN, "vtuav"))
        values[sequence.name] = frame_values(protocol, rows, truths)
        sequence.close()
    by_attribute = {
        name: summarize(protocol, [values[member] for member in members])
        for name, members in (attributes or {}).items()
        if members
    }
    return TrackerReport(
        name=results.resolve().name,
        scores=summarize(protocol, list(values.values())),
        attributes={name: _numbers(scores) for name, scores in by_attribute.items()},
        sequences={name: _numbers(summarize(protocol, [each])) for name, each in values.items()},
        run=run,
    )


def _numbers(scores: dict[str, Score]) -> Numbers:
    return {metric: each.number for metric, each in scores.items()}


def tell_apart(reports: Many[TrackerReport], folders: Many[Path]) -> None:
    """Trackers named alike get the names of the folders above as well."""
    names = [report.name for report in reports]
    for report, folder in zip(reports, folders, strict=True):
        if names.count(report.name) > 1:
            report.name = "/".join(folder.resolve().parts[-2:])


def tables(reports: Many[TrackerReport], kind: str) -> list[Table]:
    """For people: the scores; then a row per attribute, or per sequence where there is no published metric."""
    metrics = list(PROTOCOLS[kind].metrics)
    total = Table("tracker", *metrics, title=f"{kind}, {len(reports[0].sequences)} sequences")
    for report in reports:
        total.add_row(report.name, *(f"{report.scores[metric].number:.3f}" for metric in metrics))
    parts = [("attribute", [report.attributes for report in reports], [metrics[0], metrics[-1]])]
    if kind == PLAIN:
        parts.append(("sequence", [report.sequences for report in reports], metrics[:1]))
    return [total, *(_breakdown(what, reports, each, shown) for what, each, shown in parts if each[0])]


def _breakdown(what: str, reports: Many[TrackerReport], each: Many[dict[str, Numbers]], shown: Many[str]) -> Table:
    """A row per attribute or sequence, a column per tracker."""
    table = Table(what, *(report.name for report in reports), title=f"{' / '.join(shown)} by {what}")
    for name in each[0]:
        table.add_row(name, *(" / ".join(f"{numbers[name][metric]:.3f}" for metric in shown) for numbers in each))
    return table


def as_json(reports: Many[TrackerReport], kind: str, data: str) -> str:
    """All numbers and curves; null for what could not be counted."""
    metrics = PROTOCOLS[kind].metrics
    trackers = {
        report.name: {
            "scores": _numbers(report.scores),
            "attributes": report.attributes,
            "sequences": report.sequences,
            "curves": {
                metric: {"thresholds": metrics[metric].thresholds.round(6).tolist(), "shares": each.curve.tolist()}
                for metric, each in report.scores.items()
            },
            "run": report.run,
        }
        for report in reports
    }
    content = {"kind": kind, "data": data, "trackers": trackers}
    return json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plot(reports: Many[TrackerReport], kind: str, out: Path) -> list[Path]:
    """A picture `<metric>.png` per metric: the share of frames over its threshold, a line per tracker, the best first.

    Raises:
        ImportError: without matplotlib.
    """
    from matplotlib.figure import Figure

    files = []
    for name, metric in PROTOCOLS[kind].metrics.items():
        axes = (figure := Figure(figsize=(6, 4.5), layout="constrained")).add_subplot()
        for report in sorted(reports, key=lambda report: -np.nan_to_num(report.scores[name].number)):
            score = report.scores[name]
            axes.plot(metric.thresholds, score.curve, label=f"{report.name} [{score.number:.3f}]")
        axes.set(xlabel=metric.axis, ylabel="share of frames", xlim=metric.thresholds[[0, -1]], ylim=(0, 1), title=name)
        axes.grid(alpha=0.3)
        axes.legend()
        files.append(out / f"{name}.png")
        figure.savefig(files[-1], dpi=120)
    return files
