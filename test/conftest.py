"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The numbers recorded from the published network, see test/golden/README.md."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real recordings that are not part of the repository; the test is skipped where they are absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no recordings at {SHARED.parent.name}/shared/data: they are not part of the repository")
    return SHARED


@pytest.fixture
def tiny_student():
    """A real network of a few thousand random weights: runs in a millisecond, tracks nothing.

    A new one each time: an engine takes over the network that it is given.
    """
    return random_student()


def random_student():
    """See `tiny_student`."""
    import torch

    from ckd_tracker_ros.network.config import NetworkConfig
    from ckd_tracker_ros.network.student import Student

    torch.manual_seed(0)
    config = NetworkConfig(
        name="random", patch=8, template_size=32, search_size=64, width=32, depth=2, heads=2, joint_from=1,
        shared=True, elimination_blocks=(1,), head_channels=16,
    )  # fmt: skip
    return Student(config).eval()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """`tiny_student` as a weight file."""
    from ckd_tracker_ros.network import checkpoint

    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    checkpoint.save(path, random_student(), {"source": "random numbers, for tests"})
    return path


@pytest.fixture(scope="session")
def tiny_tracker(tiny_checkpoint):
    """A tracker on the CPU with the weights of `tiny_checkpoint`."""
    from ckd_tracker_ros.tracker import Tracker

    return Tracker.from_checkpoint(tiny_checkpoint, device="cpu")
