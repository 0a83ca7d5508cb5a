"""Starts the tracker node: `ros2 launch ckd_tracker_ros tracker.launch.py --show-args` lists what can be set."""

from __future__ import annotations

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

PACKAGE = "ckd_tracker_ros"
NAME = "ckd_tracker"
SHARE = get_package_share_directory(PACKAGE)

ARGUMENTS: dict[str, tuple[str, str]] = {
    "namespace": ("", "namespace of the node and of its relative topics"),
    "params_file": (os.path.join(SHARE, "config", "tracker.yaml"), "parameters of the node"),
    "rgb_topic": ("rgb/image_raw", "RGB images; compressed ones are expected at this name + /compressed"),
    "thermal_topic": ("thermal/image_raw", "thermal images; compressed ones are expected at this name + /compressed"),
    "model": ("", "model file or name of an installed model; empty: as in params_file"),
    "device": ("", "auto, cpu, cuda, cuda:N; tensorrt for an .onnx model; empty: as in params_file"),
    "autostart": ("", "true: configure and activate at start; empty: as in params_file"),
    "use_sim_time": ("", "true: time comes from /clock; empty: as in params_file"),
    "debug": ("false", "true: the node's debug messages are logged"),
}
TEXTS = ("model", "device")
SWITCHES = ("autostart", "use_sim_time")

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
# Whoever set one of these has decided how Fast DDS sends.
USER_VARIABLES = (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")


def switch(name: str, value: str) -> bool:
    """A launch argument that is on or off, however it is capitalised."""
    if value.lower() not in ("true", "false"):
        raise ValueError(f"{name}:={value} is not understood: true or false")
    return value.lower() == "true"


def start(context: LaunchContext) -> list[Node]:
    """The node, with the launch arguments as they are when it starts."""
    given = {name: context.launch_configurations[name] for name in ARGUMENTS}
    parameters = {name: given[name] for name in TEXTS if given[name]}
    parameters |= {name: switch(name, given[name]) for name in SWITCHES if given[name]}

    # rclpy knows no image_transport: the topic of compressed images does not follow that of the raw ones.
    remappings = []
    for camera in ("rgb", "thermal"):
        topic = given[f"{camera}_topic"]
        remappings += [
            (f"{camera}/image_raw", topic),
            (f"{camera}/image_raw/compressed", f"{topic}/compressed"),
        ]

    # For this node only. The camera drivers need the profile too, see docs/installing.md.
    environment = {}
    if not any(os.environ.get(name) for name in USER_VARIABLES):
        environment = dict.fromkeys(PROFILE_VARIABLES, os.path.join(SHARE, "config", "fastdds.xml"))

    logger = ".".join(filter(None, [*given["namespace"].split("/"), NAME]))
    debug = ["--log-level", f"{logger}:=debug"] if switch("debug", given["debug"]) else []
    return [
        Node(
            package=PACKAGE,
            executable="tracker_node",
            name=NAME,
            namespace=given["namespace"],
            parameters=[given["params_file"], *filter(None, [parameters])],
            remappings=remappings,
            additional_env=environment,
            ros_arguments=debug,
            output="screen",
            emulate_tty=True,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` reads."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=meaning)
        for name, (default, meaning) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
