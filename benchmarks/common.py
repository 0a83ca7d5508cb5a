"""What several benchmarks share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckd_tracker_ros.network.config import NetworkConfig

JsonOption = Annotated[Path | None, typer.Option("--json", help="also write everything to this file")]

SMALL = NetworkConfig(
    name="random_small", template_size=64, search_size=128, width=32, depth=2, heads=2, elimination_blocks=(1,),
    head_channels=16,
)  # fmt: skip
"""A network of about a millisecond, so that what surrounds it shows."""
