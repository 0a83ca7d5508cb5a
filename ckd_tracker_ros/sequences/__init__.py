"""Recordings and generated scenes behind one face: numbered RGB-thermal frames, and boxes where they are known.

What `open_sequence` reads:

- a folder with `visible/` and `infrared/` (or one of them), images in natural order, `groundtruth.txt` optional;
- a folder of images, or with `images/`: one camera;
- a folder of `<video>_visible.mp4` and `<video>_infrared.mp4`, with `tracks.json` (name -> video, first_frame,
  boxes_xywh) optional, or one such file;
- a video: one camera;
- two paths, RGB and thermal, each a video or a folder of images.
"""

from ckd_tracker_ros.sequences.opening import list_tracks, open_sequence
from ckd_tracker_ros.sequences.recording import Recording, SceneSequence, Sequence, true_box
from ckd_tracker_ros.sequences.sources import SequenceError

__all__ = [
    "Recording",
    "SceneSequence",
    "Sequence",
    "SequenceError",
    "list_tracks",
    "open_sequence",
    "true_box",
]
