"""Generated RGB-thermal scenes with exact boxes: every pipeline can be tried, tested and trained without a recording.

Everything moves along closed formulas of time, so that `Scene.frame(i)` depends on the configuration, the seed and `i`
alone. Bodies live in *world* pixels; the camera's motion maps world to RGB pixels, a homography RGB to thermal pixels.
All coordinates are continuous, with the origin at the outer corner of the first pixel, as in `boxes`. Bodies are drawn
as outlines with sub-pixel vertices, and a box is the extent of those vertices: it is exact in both images.
"""

from ckd_tracker_ros.synthetic.config import HIDINGS, KINDS, RGB_FAULTS, SceneConfig, random_config
from ckd_tracker_ros.synthetic.scene import Scene

__all__ = ["HIDINGS", "KINDS", "RGB_FAULTS", "Scene", "SceneConfig", "random_config"]
