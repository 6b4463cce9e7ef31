"""Tests that share what they trained run in one process."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("selection")
def test_xdist_groups_tests(request: pytest.FixtureRequest) -> None:
    """``--dist loadgroup`` writes the group behind the name; without it each worker trains for itself."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("not in a process of xdist that groups tests")
    assert request.node.nodeid.endswith("@selection"), f"xdist does not group tests with pytest {pytest.__version__}"
