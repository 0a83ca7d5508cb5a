"""The launch file and the Fast DDS profile, as far as this machine can run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
LAUNCH_FILE = ROOT / "launch" / "tracker.launch.py"
PROFILE = ROOT / "config" / "fastdds.xml"
NAMESPACE = "{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}"
VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
USER_VARIABLES = (*VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")

# Takes the node's place: writes down how the launch file started it.
RECORDER = """#!{python}
import json, os, sys
files = [sys.argv[i + 1] for i, word in enumerate(sys.argv) if word == "--params-file"]
record = dict(argv=sys.argv[1:], env=dict(os.environ), files=[(path, open(path).read()) for path in files])
with open({record!r}, "w") as file:
    json.dump(record, file)
"""


def test_launch_file_compiles() -> None:
    compile(LAUNCH_FILE.read_text(), str(LAUNCH_FILE), "exec")


def test_profile_has_large_buffers_and_uses_them() -> None:
    root = ElementTree.parse(PROFILE).getroot()

    def texts(tag: str) -> list[str]:
        return [element.text or "" for element in root.iter(NAMESPACE + tag)]

    defined = {
        transport.findtext(NAMESPACE + "transport_id"): transport
        for transport in root.iter(NAMESPACE + "transport_descriptor")
    }
    used = root.find(f".//{NAMESPACE}userTransports")
    assert used is not None and {element.text for element in used} == set(defined)
    assert {transport.findtext(NAMESPACE + "type") for transport in defined.values()} == {"SHM", "UDPv4"}
    assert texts("segment_size") == [str(64 * 2**20)]
    assert texts("sendBufferSize") == texts("receiveBufferSize") == [str(4 * 2**20)]
    assert texts("useBuiltinTransports") == ["false"], "the built-in transports would be used beside these"
    (participant,) = root.iter(NAMESPACE + "participant")
    assert participant.get("is_default_profile") == "true", "participants would have to name the profile"


# The largest shared memory that a participant opens, in bytes.
SEGMENT = """
import rclpy
rclpy.init()
node = rclpy.create_node("segment")
ranges = [line.split()[0].split("-") for line in open("/proc/self/maps") if "/dev/shm/fast" in line]
print(max(int(end, 16) - int(start, 16) for start, end in ranges))
rclpy.shutdown()
"""


@pytest.mark.parametrize("variables", [VARIABLES, ()], ids=["shipped", "default"])
def test_a_participant_takes_the_profile(variables: tuple[str, ...]) -> None:
    rclpy = pytest.importorskip("rclpy", reason="rclpy needs ROS 2: a distribution, or the wheels of `make setup`")
    if (name := rclpy.get_rmw_implementation_identifier()) != "rmw_fastrtps_cpp":
        pytest.skip(f"the profile is for Fast DDS, the middleware here is {name}")
    environment = {name: value for name, value in os.environ.items() if name not in USER_VARIABLES}
    environment |= dict.fromkeys(variables, str(PROFILE))
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "OFF"  # the memory of others is opened to write to them
    command = [sys.executable, "-c", SEGMENT]
    size = int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert (size > 64 * 2**20) == bool(variables)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ament prefix with this package's settings and a stand-in for the node; the file that the stand-in writes."""
    share = tmp_path / "share" / "ckd_tracker_ros"
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    program = tmp_path / "lib" / "ckd_tracker_ros" / "tracker_node"
    for folder in (share, index, program.parent):
        folder.mkdir(parents=True)
    (share / "config").symlink_to(ROOT / "config")
    (index / "ckd_tracker_ros").touch()
    record = tmp_path / "record.json"
    program.write_text(RECORDER.format(python=sys.executable, record=str(record)))
    program.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    for name in USER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return record


def launch(record: Path, **arguments: str) -> dict:
    """Runs the launch file with these arguments; how the node was started."""
    launch = pytest.importorskip("launch.actions", reason="launch needs a ROS distribution: it is in no registry")
    pytest.importorskip("launch_ros.actions", reason="launch_ros needs a ROS distribution: it is in no registry")
    from launch import LaunchService
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    service = LaunchService(noninteractive=True)
    source = PythonLaunchDescriptionSource(str(LAUNCH_FILE))
    service.include_launch_description(
        launch.IncludeLaunchDescription(source, launch_arguments=list(arguments.items()))
    )
    assert service.run() == 0, "the launch failed"
    return json.loads(record.read_text())


def remaps(started: dict) -> dict[str, str]:
    rules = [word.split(":=") for word in started["argv"] if ":=" in word]
    return {source: target for source, target in rules if not source.startswith("__")}


def test_defaults(installed: Path) -> None:
    started = launch(installed)
    assert remaps(started) == {
        f"{camera}/image_raw{suffix}": f"{camera}/image_raw{suffix}"
        for camera in ("rgb", "thermal")
        for suffix in ("", "/compressed")
    }
    profile = installed.parent / "share" / "ckd_tracker_ros" / "config" / "fastdds.xml"
    assert [started["env"].get(name) for name in VARIABLES] == [str(profile)] * 2
    (path, text) = started["files"][0]
    assert path.endswith("config/tracker.yaml") and text == (ROOT / "config" / "tracker.yaml").read_text()
    assert len(started["files"]) == 1, "something overrides params_file"
    assert "--log-level" not in started["argv"]


def test_arguments_reach_the_node(installed: Path, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    max_targets: 3\n")
    started = launch(
        installed,
        namespace="front",
        params_file=str(parameters),
        rgb_topic="/cam/color",
        thermal_topic="/flir/raw",
        model="ckd_base",
        device="cpu",
        autostart="False",
        use_sim_time="true",
        debug="true",
    )
    assert remaps(started) == {
        "rgb/image_raw": "/cam/color",
        "rgb/image_raw/compressed": "/cam/color/compressed",
        "thermal/image_raw": "/flir/raw",
        "thermal/image_raw/compressed": "/flir/raw/compressed",
        "front.ckd_tracker": "debug",
    }
    assert "__ns:=/front" in started["argv"]
    values: dict = {}
    for _, text in started["files"]:
        for node in yaml.safe_load(text).values():
            values |= node["ros__parameters"]
    assert values == {
        "max_targets": 3,
        "model": "ckd_base",
        "device": "cpu",
        "autostart": False,
        "use_sim_time": True,
    }


@pytest.mark.parametrize("variable", USER_VARIABLES)
def test_the_users_own_transport_settings_stay(installed: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "mine")
    environment = launch(installed)["env"]
    assert environment[variable] == "mine"
    assert not [name for name in VARIABLES if name != variable and name in environment]


@pytest.mark.parametrize("name", ["autostart", "use_sim_time", "debug"])
def test_a_switch_is_true_or_false(installed: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    with pytest.raises(AssertionError):
        launch(installed, **{name: "maybe"})
    assert f"{name}:=maybe is not understood: true or false" in caplog.text
    assert not installed.exists(), "the node was started all the same"
