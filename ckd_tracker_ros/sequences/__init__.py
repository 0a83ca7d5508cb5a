"""Recordings and generated scenes behind one face: numbered RGB-thermal frames, and boxes where they are known.

What `open_sequence` reads:

- a folder with `visible/` and `infrared/` (or one of them), images in natural order, `groundtruth.txt` optional;
- a sequence of GTOT, RGBT210, RGBT234, LasHeR or VTUAV, by its folders and files of truth (`benchmarks.LAYOUTS`);
- a folder of images, or with `images/`: one camera;
- a folder of `<video>_visible.mp4` and `<video>_infrared.mp4`, with `tracks.json` (name -> video, first_frame,
  boxes_xywh) optional, or one such file;
- a video: one camera;
- a rosbag2 folder or one of its .db3 and .mcap files: the pairs of its RGB and thermal topic, `groundtruth.txt` (a line
  for each pair) beside the messages optional;
- two paths, RGB and thermal, each a video or a folder of images.

`open_data_set` finds all sequences below a folder and opens each when it is used. `read_stills` reads annotated images.
"""

from ckd_tracker_ros.sequences.data_set import KINDS, LazySequence, open_data_set
from ckd_tracker_ros.sequences.moving_view import MovingView, ViewConfig
from ckd_tracker_ros.sequences.opening import list_tracks, open_sequence
from ckd_tracker_ros.sequences.recording import Recording, SceneSequence, Sequence, true_box
from ckd_tracker_ros.sequences.sources import SequenceError
from ckd_tracker_ros.sequences.stills import AnnotatedStill, AnnotatedStills, read_stills

__all__ = [
    "KINDS",
    "AnnotatedStill",
    "AnnotatedStills",
    "LazySequence",
    "MovingView",
    "Recording",
    "SceneSequence",
    "Sequence",
    "SequenceError",
    "ViewConfig",
    "list_tracks",
    "open_data_set",
    "open_sequence",
    "read_stills",
    "true_box",
]
