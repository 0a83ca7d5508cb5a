"""The tracker is three calls: `start`, `step`, `step_many`. No input or output, no ROS, nothing kept between calls."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ckd_tracker_ros import boxes, thermal
from ckd_tracker_ros.calibration import Calibration, doubted
from ckd_tracker_ros.contest import APART, Contest, at, decide, middles
from ckd_tracker_ros.crop import (
    LEAST_OTHER,
    Square,
    cut,
    find_peak,
    find_summits,
    hann_window,
    place_in_image,
    square_around,
    to_image,
)
from ckd_tracker_ros.engine import Engine, HostMaps, load
from ckd_tracker_ros.frame import MODALITIES, Estimate, RgbtFrame
from ckd_tracker_ros.looks import COUNT, Looks, levels
from ckd_tracker_ros.motion import CLOSE_S, Motion
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.outline import OWN_CELLS, VIEWS, VIEWS_OF_SOME, Outline, views
from ckd_tracker_ros.settings import TrackerSettings
from ckd_tracker_ros.sightings import Sightings
from ckd_tracker_ros.state import Appearance, Later, TargetState
from ckd_tracker_ros.thermal import Limits

DOUBTED = 0.3
"""Score from which on it is looked at which colours and which heat something has."""
LATER_GROWTH = 0.5
"""Share of what a later template adds to boxes that is taken away again: it is measured by a box that is not known, but
was found, and whose errors would stay."""
SHARE = 0.5
"""Of a doubt, between places of one search crop, where the target has just been: it may have turned."""
CONTINUITY, LIMIT, CHANCE = 2.0, 6.0, 1.0
"""Logarithms: how much likelier the target is beforehand, where it is found, than another thing; how much the looks of
another thing can say against that; and how much of that, in one frame, may be chance. What is more speaks against it in
the frames after, too. Where a look-alike has just been in the same place neither is likelier, and doubts count in full:
looks are all that is left to tell them apart."""
SUFFICIENT = 0.8
"""Score from which on a target's first appearance finds it without its later one."""
CLEAR, BESIDE = 0.7, 0.4
"""Score from which, and score of anything else up to which, what is seen teaches what the target looks like."""
CROWDED_RATE = 0.2
"""Share of its usual rate at which a box changes its size while a look-alike may be mistaken for the target, and their
pixels tell them apart: one that grows then lies around both."""


class BoxError(ValueError):
    """A start box that cannot be tracked; the message names the value and what is allowed."""


class Tracker:
    """Tracks targets through RGB-thermal frames.

    `start` and `step` are pure: the same state and frame give the same result. A tracker may serve any number of
    videos; call it from one thread at a time.

    Args:
        engine: runs the network.
        settings: may be replaced between steps (`tracker.settings = replace(tracker.settings, ...)`).
    """

    def __init__(self, engine: Engine, settings: TrackerSettings | None = None) -> None:
        self.settings = settings or TrackerSettings()
        self._engine = engine
        self._config = engine.config
        self._window = hann_window(engine.config.search_grid)
        self._no_doubts = np.zeros_like(self._window)
        self._cells = middles(engine.config.search_grid)
        weights = engine.config.calibration
        self._calibration = None if weights is None else Calibration(weights)

    @classmethod
    def from_checkpoint(
        cls,
        path: Path | str,
        device: str = "auto",
        precision: str = "auto",
        threads: int = 0,
        settings: TrackerSettings | None = None,
    ) -> Tracker:
        """A tracker from a weight file or the name of a shipped model (see `network.checkpoint`, `engine.load`).

        Raises:
            CheckpointError: no such file, or a damaged one.
            DeviceError: a device or precision that is not there.
        """
        return cls(load(checkpoint.find_model(str(path)), device, precision, threads), settings)

    @property
    def description(self) -> dict[str, str]:
        """`model`, `device`, `precision`, `runner`."""
        return self._engine.description

    @property
    def search_factor(self) -> float:
        """Side of a search crop in sizes (sqrt(width * height)) of the target."""
        return self._config.search_factor

    def warm_up(self, targets: int = 1) -> None:
        """Run the network on nothing, so that the first start and the first step take no longer than the later ones.

        Args:
            targets: that will be followed at a time, at most.
        """
        modalities, config = len(self._config.modalities), self._config
        present = np.ones(modalities, bool)
        template = np.zeros((modalities, config.template_size, config.template_size, 3), np.uint8)
        prepared = self._engine.prepare(template, present, np.full(2, 1 / config.template_factor))
        readings = [sum(_readings(present).values()), len(VIEWS_OF_SOME)] if config.outline else []
        for count in {*self._engine.batches(targets), *readings}:
            crops = np.zeros((count, modalities, config.search_size, config.search_size, 3), np.uint8)
            self._engine.run([prepared] * count, crops, np.tile(present, (count, 1)))

    def close(self) -> None:
        """Give the device's memory back; the tracker cannot be used afterwards."""
        self._engine.close()

    def start(self, frame: RgbtFrame, box: ArrayLike) -> TargetState:
        """Take the target in a box of this frame.

        Args:
            frame: at least one modality present.
            box: (4,) xywh in RGB pixels; partly outside the image is allowed, its centre is not.

        Raises:
            BoxError: NaN, too small, or outside the image.
            RegistrationError: the two images cannot be laid over each other.
        """
        checked = check_box(box, frame.size, self.settings.min_box_size)
        limits = tuple(image and thermal.limits_of(image, self.settings.thermal) for image in frame.images)
        seen = self._appearance(checked, limits, frame)
        partial = None if seen.present.all() else seen
        prepared = self._engine.prepare(seen.crops, seen.present, seen.extent)
        motion, known = Motion(frame.stamp_ns), Looks.unknown(limits, self._used(frame))
        known = known.started(known.read(frame, self.settings.registration, checked), frame.stamp_ns)
        if self._config.motion:
            known = known.patterned(frame, self.settings.registration, checked)
            known = known.surrounded(frame, self.settings.registration, checked)
            motion = replace(motion, crowded=CLOSE_S if len(known.others) else 0.0)
        state = TargetState(checked, limits, prepared, motion, {}, known, None, partial, frame.size)
        if not self._config.outline:
            return state
        return replace(state, outlines=self._outlines(state, frame, _readings(self._present(frame))))

    def renew(self, state: TargetState, frame: RgbtFrame) -> TargetState:
        """The state with the target's appearance in this frame, in which it is in `state.box`, beside the first one."""
        seen = self._appearance(state.box, state.limits, frame)
        later = Later(self._engine.prepare(seen.crops, seen.present, seen.extent), seen.present)
        if self._config.outline:
            alone, views = replace(state, templates=later.templates, recent=None), len(VIEWS_OF_SOME)
            (own,) = self._outlines(alone, frame, {tuple(seen.present.tolist()): views}).values()
            later = replace(later, growth=LATER_GROWTH * (own.growth - state.outline(seen.present).growth))
        return replace(state, recent=later)

    def complete(self, state: TargetState, frame: RgbtFrame) -> TargetState:
        """The state with what its first appearance lacks taken from this frame, in which it is in `state.box`.

        What a camera saw at the start stays as it is.
        """
        first = state.partial
        if first is None or not (new := self._present(frame) & ~first.present).any():
            return state
        seen = self._appearance(state.box, state.limits, frame)
        crops = np.where(new[:, None, None, None], seen.crops, first.crops)
        known = replace(first, crops=crops, present=first.present | new)
        prepared = self._engine.prepare(known.crops, known.present, known.extent)
        looks = state.looks.complete(state.limits, self._used(frame))
        state = replace(state, templates=prepared, looks=looks, partial=None if known.present.all() else known)
        if not self._config.outline:
            return state
        outlines = self._outlines(state, frame, _readings(self._present(frame)))
        return replace(state, outlines={**outlines, **state.outlines})

    def step(self, state: TargetState, frame: RgbtFrame) -> tuple[TargetState, Estimate]:
        """Find one target in the next frame. See `step_many`."""
        states, estimates = self.step_many([state], frame)
        return states[0], estimates[0]

    def step_many(self, states: Sequence[TargetState], frame: RgbtFrame) -> tuple[list[TargetState], list[Estimate]]:
        """Find all targets in the next frame: one batch through the network.

        Returns:
            New states and estimates, in the order of `states`.

        Raises:
            ValueError: no modality is present.
            RegistrationError: the two images cannot be laid over each other.
        """
        if not states:
            return [], []
        config = self._config
        states = self._for_frame(states, frame)
        expected = [self._expected(state, frame) for state in states]
        squares = [square_around(box, config.search_factor, config.search_size) for box in expected]
        maps = self._run(states, squares, frame)
        found = [
            self._decode(state, box, square, frame, *target_maps)
            for state, box, square, *target_maps in zip(states, expected, squares, *maps)
        ]
        new_states, estimates = map(list, zip(*found))
        return new_states, estimates

    def look(
        self, states: Sequence[TargetState], places: Sequence[Sequence[ArrayLike]], frame: RgbtFrame
    ) -> tuple[list[TargetState], list[Sightings]]:
        """Look for targets around places where they may be, without believing in any: one batch.

        Args:
            places: for each target, (4,) xywh boxes in RGB pixels around which search crops are cut.

        Returns:
            The states, of which only thermal limits and looks are new, and for each target everything that looks like
            it.

        Raises:
            ValueError: no modality is present, or a place without area.
            RegistrationError: the two images cannot be laid over each other.
        """
        config, states = self._config, self._for_frame(states, frame)
        owners = [number for number, of_target in enumerate(places) for _ in of_target]
        wanted = [place for of_target in places for place in of_target]
        squares = [square_around(place, config.search_factor, config.search_size) for place in wanted]
        seen: list[list[NDArray]] = [[] for _ in states]
        read: list[list[NDArray]] = [[] for _ in states]
        looked_at: list[list[tuple[float, float, int]]] = [[] for _ in states]
        if squares:
            outlines = [state.outline(self._present(frame)) for state in states]
            maps = self._run([states[owner] for owner in owners], squares, frame, least=DOUBTED)
            for crop, (owner, square, *target_maps) in enumerate(zip(owners, squares, *maps)):
                looked_at[owner].append((square.centre_x, square.centre_y, square.side))
                for *box, score in find_summits(*target_maps, LEAST_OTHER):
                    found = outlines[owner].corrected(to_image(np.array(box), square, config.search_size))
                    known, looks = states[owner].looks, np.full(COUNT, np.nan)
                    if score >= DOUBTED:
                        looks = known.read(frame, self.settings.registration, found)
                    found = boxes.clip(found, *frame.size, self.settings.min_box_size)
                    seen[owner].append(np.array([*found, score, known.doubt(looks, frame.stamp_ns, score), crop]))
                    read[owner].append(looks)
        return states, [
            Sightings.of(np.reshape(rows, (-1, 7)), np.reshape(looks, (-1, COUNT)), of_target)
            for rows, looks, of_target in zip(seen, read, looked_at)
        ]

    def confidence(self, peak: float, second_peak: float, doubt: float = 0.0) -> float:
        """0..1 of a sighting with this score, beside another one (0: alone); as in `Estimate`.

        Args:
            doubt: by how much more its looks are doubted than those of the other one; under 0: less.
        """
        peak, second_peak = float(doubted(peak, max(doubt, 0.0))), float(doubted(second_peak, max(-doubt, 0.0)))
        return peak if self._calibration is None else self._calibration.confidence(peak, second_peak)

    def _for_frame(self, states: Sequence[TargetState], frame: RgbtFrame) -> list[TargetState]:
        """The states with the thermal limits that hold for this frame, and looks that its cameras may judge by."""
        settings, used = self.settings.thermal, self._used(frame)
        level = levels(frame)
        measured = [image and thermal.measure(image, settings) for image in frame.images]
        return [
            replace(
                state,
                limits=tuple(thermal.smooth(*pair, settings) for pair in zip(state.limits, measured)),
                looks=state.looks.at(frame.stamp_ns, used, level),
            )
            for state in states
        ]

    def _appearance(self, box: NDArray[np.float64], limits: tuple[Limits | None, ...], frame: RgbtFrame) -> Appearance:
        """How a target in a (4,) xywh box looks in this frame."""
        square = square_around(box, self._config.template_factor, self._config.template_size)
        (crops,) = self._crops(frame, [square], self._config.template_size, [limits])
        return Appearance(crops, self._present(frame), box[2:] * square.scale / self._config.template_size)

    def _run(
        self,
        states: Sequence[TargetState],
        squares: Sequence[Square],
        frame: RgbtFrame,
        present: NDArray[np.bool_] | None = None,
        least: float = 0.0,
    ) -> HostMaps:
        """One batch through the network: the search crop of each square, for the target of the state beside it.

        Where the first appearance does not suffice, a second batch asks for the later one, which has half a say.

        Args:
            present: (N, M) modalities that are used for each; None: all that the frame has.
            least: score under which nothing is there that the later appearance need be asked about.
        """
        crops = self._crops(frame, squares, self._config.search_size, [state.limits for state in states])
        if present is None:
            present = np.tile(self._present(frame), (len(states), 1))
        maps = self._engine.run([state.templates for state in states], crops, present)
        best = maps.score.max(axis=(1, 2, 3))
        later = [state.recent for state in states]
        again = [
            number
            for number in np.flatnonzero((best >= least) & (best < SUFFICIENT))
            if later[number] is not None and later[number].present[present[number]].any()
        ]
        if again:
            more = self._engine.run([later[number].templates for number in again], crops[again], present[again])
            growth = np.array([later[number].growth for number in again], np.float32)
            seen_as_now = [np.array_equal(later[number].present, present[number]) for number in again]
            sizes = more.size / np.exp(growth * np.array(seen_as_now)[:, None])[:, :, None, None]
            for first, second in zip(maps, (more.score, sizes, more.offset)):
                first[again] = (first[again] + second) / 2
        return maps

    def _outlines(
        self, state: TargetState, frame: RgbtFrame, readings: Mapping[tuple[bool, ...], int]
    ) -> dict[tuple[bool, ...], Outline]:
        """How the network reads a target in a frame where its box is known: one batch.

        Args:
            readings: with which modalities, and in how many of `outline.VIEWS`.
        """
        config, centre = self._config, boxes.xywh_to_cxcywh(state.box)[:2]
        squares = [square_around(box, config.search_factor, config.search_size) for box in views(state.box)]
        asked = [(of, square) for of, count in readings.items() for square in squares[:count]]
        present, places = np.array([of for of, _ in asked]), [square for _, square in asked]
        maps = self._run([state] * len(asked), places, frame, present)
        read: dict[tuple[bool, ...], list[NDArray]] = {of: [] for of in readings}
        for (of, square), *target_maps in zip(asked, *maps):
            off = place_in_image(self._cells, square, config.search_size) - centre
            reach = OWN_CELLS * config.search_size / square.scale / config.search_grid
            near = (np.abs(off) < reach).all(axis=-1).astype(np.float64)
            read[of].append(to_image(find_peak(*target_maps, near).box, square, config.search_size))
        return {of: Outline.between(state.box, found) for of, found in read.items()}

    def _expected(self, state: TargetState, frame: RgbtFrame) -> NDArray[np.float64]:
        """(4,) xywh: where a target should be now, its centre inside the image; as published where it was last."""
        if not self._config.motion:
            return state.box
        box = state.motion.expected(state.box, frame.stamp_ns)
        box[:2] = np.clip(box[:2], -box[2:] / 2, np.array(frame.size) - box[2:] / 2)
        return box

    def _present(self, frame: RgbtFrame) -> NDArray[np.bool_]:
        """(M,) which of the network's modalities have an image."""
        by_name = dict(zip(MODALITIES, frame.present))
        return np.array([by_name[name] for name in self._config.modalities])

    def _used(self, frame: RgbtFrame) -> tuple[bool, ...]:
        """Per modality, whether it has an image and the network reads it."""
        return tuple(p and name in self._config.modalities for name, p in zip(MODALITIES, frame.present))

    def _crops(
        self, frame: RgbtFrame, squares: Sequence[Square], size: int, limits: Sequence[tuple[Limits | None, ...]]
    ) -> NDArray[np.uint8]:
        """(N, M, size, size, 3) crops of the network's modalities, a square each; black where one is absent."""
        crops = np.zeros((len(squares), len(self._config.modalities), size, size, 3), np.uint8)
        for m, name in enumerate(self._config.modalities):
            place = MODALITIES.index(name)
            if (image := frame.images[place]) is None:
                continue
            matrix = self.settings.registration.matrix(name, frame.size, (image.width, image.height))
            coloured = name == "thermal" and thermal.is_palette(image)
            for crop, square, limit in zip(crops[:, m], squares, limits):
                found = cut(image, square, size, matrix, limit[place])
                crop[:] = thermal.to_grey(found) if coloured else found
        return crops

    def _decode(
        self,
        state: TargetState,
        expected: NDArray[np.float64],
        square: Square,
        frame: RgbtFrame,
        *maps: NDArray,
    ) -> tuple[TargetState, Estimate]:
        """What the network's maps say of a target that was expected in a (4,) xywh box."""
        config, motion, looks, doubts = self._config, state.motion, state.looks, self._no_doubts
        told_apart = looks.tells_apart
        share, continuity = (1.0, 0.0) if motion.crowded else (SHARE, CONTINUITY)
        among = motion.crowded > 0 and told_apart
        outline = state.outline(self._present(frame))
        if config.motion:
            summits = find_summits(*maps, DOUBTED)
            summits = summits if len(summits) > 1 else summits[:0]  # one alone is nobody's rival
            places = [outline.corrected(to_image(box, square, config.search_size)) for box in summits[:, :4]]
            read = [looks.read(frame, self.settings.registration, place) for place in places]
            of_summits = [looks.doubt(each, frame.stamp_ns, high) for each, high in zip(read, summits[:, 4])]
            doubts = self._nearest(summits, of_summits)
            crop = config.search_grid, config.search_factor
            window = motion.window(*crop, expected)
            window = window * np.exp(share * (doubts.min() - doubts))
            if among:  # their pixels decide, below
                contest = Contest.won_by(find_peak(*maps, window))
            else:
                contest = decide(maps, window, doubts, motion, expected, square, config.search_size)
        else:
            contest = Contest.won_by(find_peak(*maps, self._window))
        peak, others = contest.peak, contest.others
        found, beside = outline.corrected(to_image(peak.box, square, config.search_size)), None
        if contest.hidden:
            found = expected
        if among:
            found, beside = looks.apart(frame, self.settings.registration, found)
        rate = config.size_rate * peak.score**config.size_trust * (CROWDED_RATE if among else 1.0)
        box = boxes.with_size(found, state.box[2:], 1 - rate)
        box = boxes.clip(box, *frame.size, self.settings.min_box_size)
        doubt = another = 0.0
        if config.motion:
            places = place_in_image(others[:, :2], square, config.search_size)
            rivals = np.column_stack([places, others[:, 2], at(doubts, others[:, :2])])
            if beside is not None:
                rivals = np.concatenate([[[*beside, peak.score, 0.0]], rivals])
            motion, box = motion.seen(expected, box, peak.score, rivals, frame.stamp_ns, contest.put_off, told_apart)
            box = boxes.clip(box, *frame.size, self.settings.min_box_size)
            seen = looks.read(frame, self.settings.registration, box)
            doubt, another = looks.doubt(seen, frame.stamp_ns, peak.score), looks.another(seen, frame.stamp_ns)
            if peak.score >= CLEAR and doubt <= 0:
                apart = np.abs(summits[:, :2] - peak.box[:2]).max(axis=1) > APART / config.search_grid
                for number in np.flatnonzero(apart):
                    looks = looks.beside(read[number])
            alone = peak.second_score <= BESIDE or doubt <= 0
            if peak.score >= CLEAR and alone and (another < 0 or not motion.crowded):
                looks = looks.learned(seen, state.motion.elapsed(frame.stamp_ns), frame.stamp_ns)
                if not motion.crowded:
                    looks = looks.patterned(frame, self.settings.registration, box)
        estimate = Estimate(
            box=box,
            confidence=peak.score,
            peak=peak.score,
            windowed_peak=peak.windowed,
            second_peak=peak.second_score,
            second_distance=peak.second_distance * self._config.search_size / square.scale,
            doubt=doubt,
            another=another,
            present=self._used(frame),
        )
        against = at(doubts, peak.box[:2]) - at(doubts, peak.second_place)
        case = float(np.clip(state.case + (another - CHANCE) * (peak.score >= DOUBTED), 0.0, LIMIT))
        continuity = max(0.0, continuity - case)
        if another > continuity:
            against = max(against, min(another, LIMIT) - continuity)
        estimate = replace(estimate, confidence=self.confidence(peak.score, peak.second_score, against))
        return replace(state, box=box, motion=motion, looks=looks, case=case), estimate

    def _nearest(self, summits: NDArray[np.float64], doubts: Sequence[float]) -> NDArray[np.float64]:
        """(F, F), for each cell of the maps the doubt of the nearest of (N, 5) summits, N of them; 0 without any."""
        if not len(doubts):
            return self._no_doubts
        off = self._cells[:, :, None] - summits[:, :2]
        return np.array(doubts)[np.linalg.norm(off, axis=-1).argmin(axis=-1)]


def _readings(present: NDArray[np.bool_]) -> dict[tuple[bool, ...], int]:
    """Every choice of some of these (M,) modalities, all of them first, and in how many of `outline.VIEWS` a target is
    read with it."""
    sets = [of for of in itertools.product(*[(True, False) if p else (False,) for p in present]) if any(of)]
    return {of: len(VIEWS_OF_SOME if number else VIEWS) for number, of in enumerate(sets)}


def check_box(box: ArrayLike, image_size: tuple[int, int], min_size: float) -> NDArray[np.float64]:
    """A start box as (4,) float64 xywh, if it can be tracked in an image of `image_size` (width, height).

    Raises:
        BoxError: not four finite numbers, a side under `min_size`, or its centre outside the image.
    """
    try:
        checked = np.array(box, np.float64).reshape(4)
    except (TypeError, ValueError) as error:
        raise BoxError(f"box {box!r} is not four numbers left, top, width, height") from error
    shown = ", ".join(f"{value:g}" for value in checked)
    if not np.isfinite(checked).all():
        raise BoxError(f"box ({shown}) has values that are not finite")
    width, height = image_size
    if min(checked[2:]) < min_size:
        raise BoxError(f"box ({shown}) is smaller than the smallest box, {min_size:g} px")
    x, y = checked[:2] + checked[2:] / 2
    if not (0 <= x < width and 0 <= y < height):
        raise BoxError(f"box ({shown}) has its centre outside the image of {width}x{height}")
    if max(checked[2] / width, checked[3] / height) > 2:
        raise BoxError(f"box ({shown}) is more than twice as large as the image of {width}x{height}")
    return checked
