"""What colcon, rosdep, pip and other nodes rely on."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import setuptools
from test_imports import FILES, PACKAGE, imports

import ckd_tracker_ros

ROOT = Path(__file__).parents[1]
MANIFESTS = (ROOT / "package.xml", ROOT / "ckd_tracker_msgs" / "package.xml")

# Looked up in rosdistro: the system packages among rosdep's keys, and the packages of every distribution from Humble.
ROSDEP_KEYS = set(
    """python3-hypothesis python3-matplotlib python3-numpy python3-opencv python3-pytest python3-rich
    python3-typer python3-yaml""".split()
)
ROS_PACKAGES = set(
    """ament_cmake ament_index_python builtin_interfaces ckd_tracker_msgs cv_bridge diagnostic_msgs launch launch_ros
    lifecycle_msgs message_filters rcl_interfaces rclpy rosidl_default_generators rosidl_default_runtime rosgraph_msgs
    sensor_msgs std_msgs std_srvs vision_msgs""".split()
)

# Imported name: its key in package.xml, its name for pip.
DISTRIBUTIONS = {
    "cv2": ("python3-opencv", "opencv-python-headless"),
    "matplotlib": ("python3-matplotlib", "matplotlib"),
    "numpy": ("python3-numpy", "numpy"),
    "rich": ("python3-rich", "rich"),
    "safetensors": (None, "safetensors"),
    "timm": (None, "timm"),
    "torch": (None, "torch"),
    "torchvision": (None, "torchvision"),
    "typer": ("python3-typer", "typer"),
    "yaml": ("python3-yaml", "pyyaml"),
}

# The interface table of the design.
INTERFACES = {
    "msg.TrackedTargetArray": {
        "header": "std_msgs/Header",
        "image_width": "uint32",
        "image_height": "uint32",
        "sync_offset": "float",
        "latency": "float",
        "processing_time": "float",
        "skipped_pairs": "uint32",
        "modalities": "uint8",
        "targets": "sequence<ckd_tracker_msgs/TrackedTarget>",
    },
    "msg.TrackedTarget": {
        "id": "string",
        "label": "string",
        "state": "uint8",
        "confidence": "float",
        "box": "ckd_tracker_msgs/Box2D",
        "thermal_box": "ckd_tracker_msgs/Box2D",
        "frames_lost": "uint32",
    },
    "msg.Box2D": {"x": "float", "y": "float", "width": "float", "height": "float"},
    "msg.TargetInit": {"id": "string", "label": "string", "box": "ckd_tracker_msgs/Box2D"},
    "srv.ReinitializeTargets.Request": {
        "stamp": "builtin_interfaces/Time",
        "targets": "sequence<ckd_tracker_msgs/TargetInit>",
        "replace_all": "boolean",
    },
    "srv.ReinitializeTargets.Response": {"success": "boolean", "message": "string", "ids": "sequence<string>"},
    "srv.RemoveTargets.Request": {"ids": "sequence<string>"},
    "srv.RemoveTargets.Response": {"success": "boolean", "message": "string"},
}


def manifest(path: Path) -> ElementTree.Element:
    return ElementTree.parse(path).getroot()


def dependencies(path: Path) -> set[str]:
    return {element.text or "" for element in manifest(path) if element.tag.endswith("depend")}


@pytest.fixture
def setup_arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py hands to setuptools."""
    arguments: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **given: arguments.update(given))
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    return arguments


def requirements(lines: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[ ]", line)[0] for line in lines}


@pytest.mark.parametrize("path", MANIFESTS, ids=["tracker", "messages"])
def test_manifest_is_complete(path: Path) -> None:
    root = manifest(path)
    assert root.get("format") == "3"
    assert root.findtext("license") == "Apache-2.0"
    maintainer = root.find("maintainer")
    assert maintainer is not None and "@" in maintainer.get("email", "")
    unknown = dependencies(path) - ROSDEP_KEYS - ROS_PACKAGES
    assert not unknown, f"look these keys up in rosdistro, then list them here: {unknown}"


def test_release_tools_understand_the_manifests() -> None:
    package = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg comes with ROS 2, or with `make setup`")
    names = set()
    for path in MANIFESTS:
        parsed = package.parse_package(str(path))
        parsed.validate()
        names.add(parsed.name)
    assert names == {"ckd_tracker_ros", "ckd_tracker_msgs"}


def test_changelog_names_what_comes_or_this_version() -> None:
    headings = set((ROOT / "CHANGELOG.rst").read_text().splitlines())
    assert "Forthcoming" in headings or any(line.startswith(ckd_tracker_ros.__version__) for line in headings)


def test_build_types() -> None:
    roots = [manifest(path) for path in MANIFESTS]
    types = {root.findtext("name"): root.findtext("export/build_type") for root in roots}
    assert types == {"ckd_tracker_ros": "ament_python", "ckd_tracker_msgs": "ament_cmake"}
    group = manifest(ROOT / "ckd_tracker_msgs" / "package.xml").findtext("member_of_group")
    assert group == "rosidl_interface_packages", "the generators look for this group"


def test_versions_agree(setup_arguments: dict[str, Any]) -> None:
    versions = {manifest(path).findtext("version") for path in MANIFESTS}
    assert versions | {setup_arguments["version"]} == {ckd_tracker_ros.__version__}


def test_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    for part in ("Apache License", "Version 2.0, January 2004", "9. Accepting Warranty", "END OF TERMS AND CONDITIONS"):
        assert part in text


def test_every_imported_package_is_declared(setup_arguments: dict[str, Any]) -> None:
    declared = dependencies(ROOT / "package.xml")
    for_pip = requirements(setup_arguments["install_requires"] + setup_arguments["extras_require"]["demo"])
    # These are asked for by the functions that need them.
    imported = {
        name.partition(".")[0]
        for module, file in FILES.items()
        for name, _ in imports(ast.parse(file.read_text()), module, file.name == "__init__.py")
    } - {PACKAGE, "rosbags", "onnxruntime"}
    for name in sorted(imported - set(sys.stdlib_module_names)):
        key, pip_name = DISTRIBUTIONS.get(name, (name, None))
        assert key is None or key in declared, f"{name} is imported and package.xml has no {key}"
        assert pip_name is None or pip_name in for_pip, f"{name} is imported and setup.py has no {pip_name}"


def test_torch_is_left_to_the_user_of_a_robot() -> None:
    assert not [key for key in dependencies(ROOT / "package.xml") if key.endswith("-pip")]


def test_entry_points_exist(setup_arguments: dict[str, Any]) -> None:
    scripts = dict(line.split(" = ") for line in setup_arguments["entry_points"]["console_scripts"])
    assert set(scripts) == {"ckd-tracker", "tracker_node", "player_node"}
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), target


def test_launch_file_starts_an_entry_point(setup_arguments: dict[str, Any]) -> None:
    (executable,) = re.findall(r'executable="(\w+)"', (ROOT / "launch" / "tracker.launch.py").read_text())
    assert any(line.startswith(f"{executable} = ") for line in setup_arguments["entry_points"]["console_scripts"])


def test_a_wheel_holds_what_a_robot_needs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("package.xml", "setup.py", "setup.cfg", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (PACKAGE, "ckd_tracker_msgs", "launch", "config", "resource", "test"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    (source / "models").mkdir()
    for name in ("small.safetensors", "small.md", "published.pth"):
        (source / "models" / name).touch()
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    built = subprocess.run(
        [*pip, "--use-pep517", "--wheel-dir", str(tmp_path), str(source)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    share = f"{PACKAGE}-{ckd_tracker_ros.__version__}.data/data/share/"
    data = {name.removeprefix(share) for name in names if name.startswith(share)}
    config = ROOT / "config"
    settings = {path.relative_to(config).as_posix() for path in config.rglob("*") if path.is_file()}
    assert data == {
        f"ament_index/resource_index/packages/{PACKAGE}",
        f"{PACKAGE}/package.xml",
        f"{PACKAGE}/launch/tracker.launch.py",
        f"{PACKAGE}/models/small.safetensors",
        f"{PACKAGE}/models/small.md",
        *(f"{PACKAGE}/config/{name}" for name in settings),
        *(f"{PACKAGE}/ckd_tracker_msgs/msg/{path.name}" for path in (ROOT / "ckd_tracker_msgs" / "msg").iterdir()),
    }
    modules = {name for name in names if name.endswith(".py") and not name.startswith(share)}
    assert modules == {file.relative_to(source).as_posix() for file in (source / PACKAGE).rglob("*.py")}


@pytest.mark.parametrize("name", INTERFACES)
def test_interfaces_are_those_of_the_design(name: str) -> None:
    module, *attributes = name.split(".")
    interface = pytest.importorskip(
        f"ckd_tracker_msgs.{module}", reason="ckd_tracker_msgs is not built: `make setup`, or colcon build"
    )
    for attribute in attributes:
        interface = getattr(interface, attribute)
    assert interface.get_fields_and_field_types() == INTERFACES[name]


def test_target_states() -> None:
    messages = pytest.importorskip(
        "ckd_tracker_msgs.msg", reason="ckd_tracker_msgs is not built: `make setup`, or colcon build"
    )
    states = {name: getattr(messages.TrackedTarget, name) for name in ("TRACKING", "UNCERTAIN", "LOST", "REMOVED")}
    assert states == {"TRACKING": 1, "UNCERTAIN": 2, "LOST": 3, "REMOVED": 4}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "ckd_tracker_msgs").rglob("*.[ms][sr][gv]")), ids=lambda path: path.name
)
def test_every_number_in_a_message_says_its_unit_or_meaning(path: Path) -> None:
    for line in path.read_text().splitlines():
        if re.match(r"(u?int|float)\d+ ", line):
            assert re.search(r"  # \w", line), line
