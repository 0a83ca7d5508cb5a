"""Whose peak it is, where a look-alike may be near."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ckd_tracker_ros import boxes
from ckd_tracker_ros.contest import AROUND_BOTH, COMPARABLE, UNLIKE_ITSELF, at, decide, middles
from ckd_tracker_ros.crop import LEAST_OTHER, find_peak, find_summits, square_around
from ckd_tracker_ros.motion import CLAIM_S, MERGED_S, Motion

GRID, FACTOR, SIDE = 12, 4.0, 192
BOX = np.array([270.0, 200.0, 60.0, 60.0])
"""Where the target is expected: a cell of the crop is 20 px wide, and its middle is between cells 5 and 6."""
SQUARE = square_around(BOX, FACTOR, SIDE)
NO_DOUBTS, EVERYWHERE = np.zeros((GRID, GRID)), np.ones((GRID, GRID))


def maps(*peaks: tuple[int, float], wide: float = 1.0, shift: float = 0.5) -> tuple[NDArray, NDArray, NDArray]:
    """Score, size and offset with peaks in these columns of row 5, of boxes so much wider than the target's."""
    score = np.full((1, GRID, GRID), 0.01)
    for column, height in peaks:
        score[0, 5, column] = height
    size = np.full((2, GRID, GRID), 1 / FACTOR)
    size[0] *= wide
    return score, size, np.full((2, GRID, GRID), shift)


def rival(right: float, seconds: float = 0.0) -> Motion:
    """Of a target with a look-alike so many pixels to the right of where it is expected, seen so long ago."""
    place = boxes.xywh_to_cxcywh(BOX)[:2] + (right, 0)
    return Motion(0, rivals=np.array([[*place, 0.6, 0.0, seconds]]))


def column(contest) -> int:
    """Of the peak that is believed."""
    return int(contest.peak.box[0] * GRID)


@pytest.mark.parametrize(
    ("own", "stays"),
    [
        pytest.param(0.16, True, id="the target is faint in its place"),
        pytest.param(0.05, False, id="nothing is there: the view may have jumped, and both with it"),
    ],
)
def test_all_of_what_stands_in_a_claimed_place_is_put_off(own, stays):
    """A look-alike that is wider than what it claims."""
    shown = maps((9, 0.8), (8, 0.33), (5, own))
    won = decide(shown, EVERYWHERE, NO_DOUBTS, rival(80), BOX, SQUARE, SIDE)
    assert (won.put_off, won.hidden, column(won)) == (stays, False, 5 if stays else 9)
    for motion in (Motion(0), rival(-80), rival(80, seconds=CLAIM_S + 0.1)):
        won = decide(shown, EVERYWHERE, NO_DOUBTS, motion, BOX, SQUARE, SIDE)
        assert (won.put_off, won.hidden, column(won)) == (False, False, 9), "not claimed"


def test_a_peak_of_its_own_is_the_target_however_near():
    near = maps((7, 0.8), (5, 0.3))
    won = decide(near, EVERYWHERE, NO_DOUBTS, rival(40), BOX, SQUARE, SIDE)
    assert (won.put_off, won.hidden, column(won)) == (True, False, 5)
    mixed_up = np.zeros((GRID, GRID))
    mixed_up[:, :6] = UNLIKE_ITSELF + 0.1
    assert column(decide(near, EVERYWHERE, mixed_up, rival(40), BOX, SQUARE, SIDE)) == 7, "by its looks it is not"


@pytest.mark.parametrize(
    ("shift", "put_off"),
    [
        pytest.param(0.0, True, id="where the target is expected"),
        pytest.param(0.3, True, id="close to that"),
        pytest.param(0.9, False, id="where the other one is: nothing is seen of the target"),
    ],
)
def test_a_cell_of_the_peak_of_both_is_the_targets_where_its_box_is(shift, put_off):
    """Cell 6 is between the target, at 6.0, and a look-alike at 7.9: less than the cell beside it, it is no summit."""
    score, size, offset = maps((7, 0.8), (6, 0.3))
    offset[0, :, 7], offset[0, :, 6] = 0.9, shift
    won = decide((score, size, offset), EVERYWHERE, NO_DOUBTS, rival(40), BOX, SQUARE, SIDE)
    assert (won.put_off, won.hidden, column(won)) == (put_off, False, 6 if put_off else 7)


@pytest.mark.parametrize(
    ("peak", "wide", "right", "seconds", "hidden"),
    [
        pytest.param(6, 1.5, 35, 0.0, True, id="around both"),
        pytest.param(6, AROUND_BOTH - 0.05, 35, 0.0, False, id="hardly wider: it has moved"),
        pytest.param(6, 1.5, 70, 0.0, False, id="nobody else is in it"),
        pytest.param(6, 1.5, 35, MERGED_S + 0.1, False, id="it was seen too long ago"),
        pytest.param(7, 1.0, 45, 0.0, True, id="that of the other one"),
        pytest.param(7, 1.0, 60, 0.0, False, id="between the two: it may have moved"),
    ],
)
def test_of_two_that_are_one_peak_the_target_is_where_it_was_expected(peak, wide, right, seconds, hidden):
    shown = maps((peak, 0.6), (peak - 1, 0.2), wide=wide, shift=0.9 if peak == 7 else 0.5)
    won = decide(shown, EVERYWHERE, NO_DOUBTS, rival(right, seconds), BOX, SQUARE, SIDE)
    assert column(won) == peak and (won.hidden, won.put_off) == (hidden, hidden)


def test_a_box_is_not_around_both_where_the_other_one_was_much_fainter():
    shown, other = maps((6, 0.6), wide=1.5), rival(35)
    for score, hidden in ((COMPARABLE * 0.6 + 0.01, True), (COMPARABLE * 0.6 - 0.01, False)):
        other.rivals[0, 2] = score
        assert decide(shown, EVERYWHERE, NO_DOUBTS, other, BOX, SQUARE, SIDE).hidden == hidden


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_other_peaks_are_where_their_boxes_are(seed):
    rng = np.random.default_rng(seed)
    score, size, offset = (rng.random((of, GRID, GRID)).astype(np.float32) for of in (1, 2, 2))
    peak = find_peak(score, size, offset, EVERYWHERE)
    summits = find_summits(score, size, offset, LEAST_OTHER)
    elsewhere = np.abs(np.floor(summits[:, :2] * GRID) - np.floor(peak.box[:2] * GRID)).max(axis=1) > 1
    assert elsewhere.sum() == len(summits) - 1
    np.testing.assert_allclose(peak.others, summits[elsewhere][:, [0, 1, 4]])


def test_values_of_a_map_are_those_of_the_cells():
    cells = np.arange(16.0).reshape(4, 4)
    np.testing.assert_array_equal(at(cells, middles(4)), cells)
    np.testing.assert_array_equal(at(cells, np.array([[-0.1, 0.3], [1.2, 1.0]])), [4, 15])


@pytest.mark.parametrize(
    ("peaks", "wide", "right", "seen"),
    [
        pytest.param(
            [(7, 0.8), (6, 0.2), (10, 0.4)], 1.0, 45, [[38, 0.8], [98, 0.4]], id="on it: seen where it is now"
        ),
        pytest.param([(6, 0.6), (5, 0.2), (10, 0.4)], 1.5, 35, [[98, 0.4]], id="around both: its place is not seen"),
        pytest.param([(7, 0.8), (5, 0.4)], 1.0, 45, [[38, 0.8]], id="the target is seen beside it"),
    ],
)
def test_what_hides_the_target_is_seen_where_it_is_and_the_target_is_no_look_alike(peaks, wide, right, seen):
    shown = maps(*peaks, wide=wide, shift=0.9)
    both = replace(rival(right), rivals=np.concatenate([rival(right).rivals, rival(98).rivals]))
    others = decide(shown, EVERYWHERE, NO_DOUBTS, both, BOX, SQUARE, SIDE).others
    np.testing.assert_allclose((others[:, ::2] - (0.5, 0)) * (SQUARE.side, 1), seen, atol=0.1)
