"""Print what came of the inputs of each long test."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
from bounds import CASES, COUNTS, Counts


@pytest.fixture(autouse=True)
def _counts(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Iterator[None]:
    COUNTS.__dict__.update(Counts().__dict__)
    yield
    if CASES and COUNTS.accepted + COUNTS.refused:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        with capsys.disabled():
            print(
                f"\n{request.node.name}: {COUNTS.accepted:,} accepted, {COUNTS.refused:,} refused, the slowest in "
                f"{COUNTS.slowest:.1f} s; peak memory of the process {peak:.2f} GB"
            )
