"""A tracker over all sequences of a data set: one text file each, in several processes, going on where it stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Many
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from rich.console import Console
from rich.progress import track

from ckd_tracker_ros.evaluation import run
from ckd_tracker_ros.evaluation.provenance import result_files
from ckd_tracker_ros.frame import MODALITIES, RgbtFrame
from ckd_tracker_ros.sequences import LazySequence, Sequence, SequenceError
from ckd_tracker_ros.target import Target
from ckd_tracker_ros.tracker import Tracker

BOTH = "both"
MODALITY_CHOICES = (*MODALITIES, BOTH)
ERRORS = "errors.log"


@dataclass(frozen=True)
class Job:
    """What every process has to know; may be pickled.

    Attributes:
        model, device, precision, threads: as of `Tracker.from_checkpoint`.
        modality: one of `MODALITY_CHOICES`: the cameras whose images are used.
        out: folder of the results.
    """

    model: str
    device: str
    precision: str
    threads: int
    modality: str
    out: Path

    def tracker(self) -> Tracker:
        return Tracker.from_checkpoint(self.model, self.device, self.precision, self.threads)


@dataclass(frozen=True)
class Outcome:
    """What has become of one sequence.

    Attributes:
        frames: tracked, with the start frame.
        seconds: of the tracker alone, without reading images.
        error: in one line; empty if all went well.
        trace: where it happened.
    """

    name: str
    frames: int = 0
    seconds: float = 0.0
    error: str = ""
    trace: str = ""


class OneCamera:
    """A sequence without the images of the other camera."""

    def __init__(self, sequence: Sequence, modality: str) -> None:
        self._sequence, self._modality = sequence, modality

    def __getattr__(self, name: str) -> object:
        return getattr(self._sequence, name)

    def __len__(self) -> int:
        return len(self._sequence)

    def frame(self, i: int) -> RgbtFrame:
        """Frame `i`.

        Raises:
            SequenceError: without an image of this camera.
        """
        full = self._sequence.frame(i)
        images = tuple(image if name == self._modality else None for name, image in zip(MODALITIES, full.images))
        if not any(image is not None for image in images):
            raise SequenceError(f"{self._sequence.name} has no {self._modality} image in frame {i}")
        return RgbtFrame(images, full.stamp_ns)


def is_done(out: Path, name: str) -> bool:
    """Whether a sequence has whole results."""
    return result_files(out, name)[0].is_file()


def track_sequence(tracker: Tracker, sequence: Sequence, out: Path) -> Outcome:
    """Follows the true target from its first box to the end of the sequence.

    Writes three files, one line per frame: the boxes as x,y,w,h in pixels (the start box first), the confidences, and
    the seconds that the tracker took. The boxes come last, under another name until they are whole, so that their file
    says that the sequence is done.

    Raises:
        SequenceError, StartError, BoxError, OSError: as of `run.follow`; nothing is left behind then.
    """
    start, targets = run.starts(sequence, [])
    boxes, confidences, times = [], [], []
    current: list[Target] = []
    for number in range(start, len(sequence)):
        frame = sequence.frame(number)
        begun = time.perf_counter()
        current = run.step(tracker, frame, current) if current else run.begin(tracker, frame, targets)
        times.append(time.perf_counter() - begun)
        boxes.append(run.format_box(current[0].state.box))
        confidences.append(f"{current[0].confidence:.4f}\n")
    lines_of = (boxes, confidences, [f"{seconds:.6f}\n" for seconds in times])
    for file, lines in reversed([*zip(result_files(out, sequence.name), lines_of)]):
        part = file.with_name(f"{file.name}.part")
        part.write_text("".join(lines))
        part.replace(file)
    return Outcome(sequence.name, len(boxes), sum(times))


def attempt(tracker: Tracker, sequence: LazySequence, job: Job) -> Outcome:
    """`track_sequence`, whatever happens."""
    try:
        seen = sequence if job.modality == BOTH else OneCamera(sequence, job.modality)
        return track_sequence(tracker, seen, job.out)
    except Exception as error:  # noqa: BLE001 - one sequence must not cost the others: told, counted, logged
        return Outcome(sequence.name, error=f"{type(error).__name__}: {error}", trace=traceback.format_exc())
    finally:
        sequence.close()


def evaluate(
    job: Job, sequences: Many[LazySequence], processes: int, tracker: Tracker, console: Console
) -> list[Outcome]:
    """Runs over the sequences; what fails is printed and goes with its traceback into `ERRORS` of the results' folder.

    Args:
        processes: with more than 1 each has a tracker of its own, and `tracker` is closed.
        tracker: made by `job`.
    """
    if processes == 1:
        outcomes = (attempt(tracker, sequence, job) for sequence in sequences)
    else:
        tracker.close()
        outcomes = in_processes(job, sequences, processes)
    done = []
    total, quiet = len(sequences), not console.is_terminal
    for outcome in track(outcomes, "sequences", total, console=console, transient=True, disable=quiet):
        done.append(outcome)
        if outcome.error:
            console.print(f"failed: {outcome.name}: {outcome.error}", soft_wrap=True, markup=False, highlight=False)
            with (job.out / ERRORS).open("a", encoding="utf-8") as log:
                log.write(f"{outcome.name}: {outcome.error}\n{outcome.trace}\n")
    return done


def in_processes(job: Job, sequences: Many[LazySequence], processes: int) -> Iterator[Outcome]:
    """Outcomes in the order they come. A process that dies costs the sequence it had; another takes its place."""
    context = multiprocessing.get_context("spawn")
    waiting = deque(sequences)
    busy: dict[Connection, tuple[multiprocessing.process.BaseProcess, LazySequence]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < processes:
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, job), daemon=True)
                process.start()
                theirs.close()  # so that its death is an end of file here
                busy[ours] = process, waiting.popleft()
                _give(ours, busy[ours][1])
            for pipe in wait(list(busy)):
                process, sequence = busy[pipe]
                try:
                    yield pipe.recv()
                except (EOFError, OSError):
                    process.join()
                    del busy[pipe]
                    yield Outcome(sequence.name, error=f"its process ended with exit code {process.exitcode}")
                    continue
                if waiting:
                    busy[pipe] = process, waiting.popleft()
                    _give(pipe, busy[pipe][1])
                else:
                    _give(pipe, None)
                    process.join()
                    del busy[pipe]
    finally:
        for process, _ in busy.values():
            process.terminate()


def _give(pipe: Connection, sequence: LazySequence | None) -> None:
    """To a process, which may have died: then the next reading from it says so."""
    with suppress(OSError):
        pipe.send(sequence)


def _work(pipe: Connection, job: Job) -> None:
    """Of one process: sequences in, outcomes out, until there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    tracker = job.tracker()
    while (sequence := pipe.recv()) is not None:
        pipe.send(attempt(tracker, sequence, job))


def threads_for(processes: int, threads: int) -> int:
    """CPU threads of each process: as asked for, else the cores shared out; one process leaves it to torch."""
    return threads if threads or processes == 1 else max(1, len(os.sched_getaffinity(0)) // processes)
