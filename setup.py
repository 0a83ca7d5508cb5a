"""Installs ckd_tracker_ros, by colcon (ament_python) as well as by pip."""

import re
from pathlib import Path

from setuptools import find_packages, setup

NAME = "ckd_tracker_ros"
SHARE = f"share/{NAME}"
ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / NAME / "__init__.py").read_text(), re.MULTILINE).group(1)

DATA = {
    "share/ament_index/resource_index/packages": [f"resource/{NAME}"],
    SHARE: ["package.xml"],
}
for folder, patterns in {
    "launch": ["*.launch.py"],
    "config": ["*.yaml", "*.xml"],
    "config/train": ["*.yaml", "*.json"],
    "models": ["*.safetensors", "*.md"],
    "ckd_tracker_msgs/msg": ["*.msg"],  # bags are written without ROS
}.items():
    files = [path for pattern in patterns for path in sorted((ROOT / folder).glob(pattern))]
    DATA[f"{SHARE}/{folder}"] = [path.relative_to(ROOT).as_posix() for path in files]

DEMO = ["matplotlib"]
BAG = ["rosbags>=0.11.9"]
EXPORT = ["onnx", "onnxruntime", "onnxscript"]
TRAIN = [*DEMO, "tensorboard"]
TEST = [*DEMO, *BAG, *EXPORT, "hypothesis", "pytest", "rgbt>=1.0.1", "ruff"]

setup(
    name=NAME,
    version=VERSION,
    description="RGB-thermal target tracking for ROS 2 with Coupled Knowledge Distillation",
    license="Apache-2.0",
    maintainer="ckd_tracker_ros maintainers",
    maintainer_email="maintainers@example.com",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    data_files=list(DATA.items()),
    zip_safe=False,
    python_requires=">=3.10",
    # What pip needs. colcon installs none of it: there numpy, OpenCV, rich and typer come from the distribution, by
    # package.xml, and the rest from the virtual environment that docs/installing.md describes.
    install_requires=[
        "numpy",
        "opencv-python-headless",
        "pyyaml",
        "rich",
        "safetensors",
        "timm>=1.0",
        "torch>=2.6",
        "torchvision",
        "typer>=0.12",
    ],
    extras_require={"bag": BAG, "demo": DEMO, "export": EXPORT, "test": TEST, "train": TRAIN},
    entry_points={
        "console_scripts": [
            f"ckd-tracker = {NAME}.cli:main",
            f"tracker_node = {NAME}.ros.node:main",
            f"player_node = {NAME}.ros.player:main",
        ]
    },
)
