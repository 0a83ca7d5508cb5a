"""Every module can be imported, and imports only what its place in the design allows."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import ckd_tracker_ros

PACKAGE = "ckd_tracker_ros"
SOURCE = Path(ckd_tracker_ros.__file__).parent

ROS = frozenset(
    """rclpy ament_index_python builtin_interfaces ckd_tracker_msgs cv_bridge diagnostic_msgs lifecycle_msgs
    message_filters rcl_interfaces rosgraph_msgs sensor_msgs std_msgs std_srvs vision_msgs""".split()
)


@dataclass(frozen=True)
class Room:
    """What the modules of one room may import, besides the standard library and each other.

    Attributes:
        rooms: of this package.
        packages: of others.
        lazily: rooms and packages that only a function may import, when it is called.
    """

    rooms: frozenset[str] = frozenset()
    packages: frozenset[str] = frozenset()
    lazily: frozenset[str] = frozenset()


def room(rooms: set[str] | frozenset[str], packages: str, lazily: set[str] | frozenset[str] = frozenset()) -> Room:
    return Room(frozenset(rooms), frozenset(packages.split()), frozenset(lazily))


GEOMETRY = {
    "boxes",
    "calibration",
    "causes",
    "compressed",
    "frame",
    "images",
    "thermal",
    "crop",
    "registration",
    "settings",
    "pairing",
    "motion",
    "contest",
    "outline",
    "looks",
    "pattern",
    "look_alikes",
    "sightings",
    "modality",
    "share",
}
SCENES = {"synthetic", "sequences", "overlay"}
NETWORK = GEOMETRY | {"network"}
FOLLOWING = {"state", "tracker", "search", "target", "target_messages"}
TRACKER = NETWORK | FOLLOWING | {"engine"}
DEMO = {"ros.demo", "ros.demo_report"}
EVALUATION = {
    f"evaluation.{name}" for name in ("metrics", "reliability", "provenance", "attributes", "report", "timing", "speed")
}
CLIENTS = {"alignment", "bag", "doctor", "doctor.machine", "training", "evaluation", *EVALUATION}

# The table of DESIGN.md: a module of a room that is not listed here is an error, so that its place gets decided.
ROOMS = {
    "": Room(),
    **dict.fromkeys(GEOMETRY - {"images", "share"}, room(GEOMETRY, "numpy cv2")),
    "share": room(set(), "", {"ament_index_python"}),
    "images": room(GEOMETRY, "numpy cv2", {"cv_bridge"}),
    "sequences": room(GEOMETRY | {"synthetic"}, "numpy cv2", {"rosbags"}),
    **dict.fromkeys(SCENES - {"sequences"}, room(GEOMETRY, "numpy cv2")),
    "network": room(GEOMETRY, "numpy torch timm safetensors"),
    "engine": room(NETWORK, "numpy torch", {"onnxruntime"}),
    **dict.fromkeys(FOLLOWING, room(TRACKER, "numpy torch")),
    "parameters": room(GEOMETRY, "yaml"),
    "training": room(TRACKER | SCENES, "numpy torch torchvision timm safetensors cv2 rich yaml", {"matplotlib"}),
    "bag": room(TRACKER | SCENES, "numpy rich", {"rosbags"}),
    "alignment": room(GEOMETRY | SCENES, "numpy cv2 rich"),
    "doctor": room(GEOMETRY | SCENES, "numpy cv2 rich"),
    "doctor.machine": room(GEOMETRY | {"doctor"}, "", {"engine", "network"}),
    "evaluation": room(TRACKER | SCENES | CLIENTS - {"training", "bag", "doctor", "alignment"}, "numpy rich"),
    **dict.fromkeys(
        ("evaluation.metrics", "evaluation.reliability", "evaluation.provenance", "evaluation.attributes"),
        room(GEOMETRY | {"evaluation.metrics"}, "numpy", {"matplotlib"}),
    ),
    "evaluation.timing": room(GEOMETRY, "numpy cv2 rich", {"torch", "rclpy"}),
    "evaluation.speed": room(TRACKER | {"evaluation.timing"}, "torch numpy rich"),
    "evaluation.report": room(
        GEOMETRY | {"sequences", "evaluation.metrics", "evaluation.provenance"}, "numpy rich", {"matplotlib"}
    ),
    "ros": Room(
        frozenset(TRACKER | SCENES | {"doctor", "parameters"}),
        ROS | {"numpy", "cv2"},
        frozenset({"torch", "matplotlib", "rich"}),
    ),
    # For people at a terminal: no node imports these.
    **dict.fromkeys(
        DEMO,
        Room(frozenset(SCENES | GEOMETRY | DEMO | {"ros"}), ROS | {"numpy", "cv2", "rich"}, frozenset({"matplotlib"})),
    ),
    "cli": room(
        TRACKER | SCENES | CLIENTS, "numpy cv2 typer rich", ROS | DEMO | {"ros", "parameters", "matplotlib", "torch"}
    ),
}


def room_of(module: str) -> str:
    """The longest listed prefix of a module's name, which is given without the package's."""
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((name for name in names if name in ROOMS), parts[0])


def name_of(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(SOURCE.rglob("*.py"))}


def imports(tree: ast.AST, module: str, is_package: bool, lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """Every imported name in full, and whether it is imported inside a function."""
    for node in ast.iter_child_nodes(tree):
        inside = lazy or isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef))
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = [PACKAGE, *filter(None, module.split("."))]
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, *filter(None, [base])])
            yield from ((f"{base}.{alias.name}", inside) for alias in node.names)
        else:
            yield from imports(node, module, is_package, inside)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What a module imports against the table."""
    here = room_of(module)
    if here not in ROOMS:
        return [f"{module} belongs to no room of the table in {Path(__file__).name}: add it where the design puts it"]
    allowed = ROOMS[here]
    found = []
    for name, lazy in imports(ast.parse(source), module, is_package):
        top, _, rest = name.partition(".")
        if top in sys.stdlib_module_names:
            continue
        target = room_of(rest) if top == PACKAGE else top
        if top == PACKAGE and rest.startswith("__"):
            target = ""  # such as __version__, of the package itself
        permitted = allowed.rooms | {here, ""} if top == PACKAGE else allowed.packages
        if target not in permitted and not (lazy and target in allowed.lazily):
            found.append(f"{module or PACKAGE} may not import {name}{' in a function' * lazy}")
    return found


def test_every_module_can_be_imported() -> None:
    pytest.importorskip("rclpy", reason="rclpy needs ROS 2: a distribution, or the wheels that `make setup` installs")

    def fail(name: str) -> None:
        raise AssertionError(f"{name} cannot be imported") from sys.exc_info()[1]

    names = [found.name for found in pkgutil.walk_packages(ckd_tracker_ros.__path__, f"{PACKAGE}.", onerror=fail)]
    for name in names:
        if not name.endswith(".__main__"):
            importlib.import_module(name)
    assert {name.partition(".")[2] for name in names} == set(FILES) - {""}, "a folder without __init__.py"


@pytest.mark.parametrize("module", FILES, ids=lambda name: name or PACKAGE)
def test_imports_follow_the_table(module: str) -> None:
    file = FILES[module]
    assert not violations(file.read_text(), module, is_package=file.name == "__init__.py")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("boxes", "import torch"),
        ("crop", "from ckd_tracker_ros.network import checkpoint"),
        ("thermal", "from . import tracker"),
        ("network.vit", "def resize():\n    import cv2"),
        ("network.vit", "from ..engine import select"),
        ("engine.eager", "from ckd_tracker_ros import tracker"),
        ("tracker", "from sensor_msgs.msg import Image"),
        ("target", "import ckd_tracker_ros.ros.messages"),
        ("synthetic", "class Scene:\n    def __init__(self):\n        import torch"),
        ("sequences", "import rosbags"),
        ("training.loop", "import rclpy"),
        ("evaluation.metrics", "import torch.nn"),
        ("evaluation.metrics", "from ckd_tracker_ros.tracker import Tracker"),
        ("evaluation.report", "from . import run"),
        ("ros.node", "from ckd_tracker_ros import cli"),
        ("cli", "import rclpy"),
        ("cli", "from ckd_tracker_ros.ros import node"),
        ("attic", ""),
        ("boxes", "from ckd_tracker_ros.attic import dust"),
    ],
)
def test_the_table_forbids(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("crop", "import math\nimport cv2\nfrom ckd_tracker_ros import __version__, boxes"),
        ("images", "def convert():\n    from cv_bridge import CvBridge"),
        ("network.vit", "from .config import BASE\nimport torch.nn.functional as F"),
        ("ros.node", "from sensor_msgs.msg import Image\nfrom ckd_tracker_ros.tracker import Tracker"),
        ("cli", "def demo():\n    import rclpy\n    from ckd_tracker_ros.ros import player"),
    ],
)
def test_the_table_permits(module: str, source: str) -> None:
    assert violations(source, module) == []
