"""Networks of random weights whose boxes stay where they are, so that every step costs the same."""

from __future__ import annotations

import math

import torch

from ckd_tracker_ros.crop import hann_window
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.network.student import Student

SMALL = NetworkConfig(
    name="random_small", template_size=64, search_size=128, width=32, depth=2, heads=2, elimination_blocks=(1,),
    head_channels=16,
)  # fmt: skip
"""A network of about a millisecond, so that what surrounds it shows."""


def random_student(config: NetworkConfig) -> Student:
    """Random weights, but for the last layers of its head: every box comes out where the last one was, a quarter of the
    crop wide and high. Random sizes would double the box at every step, and with it the pixels of the crop."""
    torch.manual_seed(0)
    student = Student(config)
    cell = int(hann_window(config.search_grid).argmax()) // config.search_grid
    share = 0.996 / config.search_factor  # the side of a crop is rounded up: exactly 1 / factor would grow
    biases = {"ctr": 0.0, "offset": config.search_grid / 2 - cell, "size": math.log(share / (1 - share))}
    with torch.no_grad():
        for tower, bias in biases.items():
            layer = student.box_head.get_submodule(f"conv5_{tower}")
            layer.weight.zero_()
            layer.bias.fill_(bias)
    return student.eval()
