"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

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
