"""Pairs of a recording to calibrate with: spread over all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ckd_tracker_ros.frame import RgbtFrame
from ckd_tracker_ros.pairing import PairingSettings
from ckd_tracker_ros.sequences import SequenceError, open_sequence
from ckd_tracker_ros.sequences.bags import BagSequence, is_bag


def spread_pairs(
    source: Path,
    count: int,
    track: str = "",
    topics: tuple[str, str] = ("", ""),
    pairing: PairingSettings | None = None,
) -> list[RgbtFrame]:
    """Pairs at even distances; those that lack an image or do not decode are left out.

    Args:
        source: whatever `open_sequence` reads, or a bag.
        count: of pairs, at most.
        track: of the source; "": its first.
        topics: of a bag, RGB and thermal; "": by their names.
        pairing: of a bag's images.

    Raises:
        SequenceError: it cannot be read, or has no usable pair.
    """
    sequence = BagSequence(source, *topics, pairing) if is_bag(source) else open_sequence(source, track or None)
    pairs, problem = [], None
    for number in np.unique(np.linspace(0, len(sequence) - 1, count).round().astype(int)).tolist():
        try:
            frame = sequence.frame(number)
        except SequenceError as error:
            problem = error
            continue
        if all(frame.present):
            pairs.append(frame)
    if not pairs:
        raise problem or SequenceError(f"{source} has no pair of images: an RGB and a thermal camera are needed")
    return pairs
