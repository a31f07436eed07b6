"""The study that the fault tests interrupt, and its final state without an interruption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from states import STUDY, TRAIN, Whole, completed, final_state


def _whole(place: Path, arguments: tuple[str, ...]) -> Whole:
    done = completed(place, *arguments, "--out", "whole")
    assert done.status == 0, done.output
    return Whole(arguments, final_state(place / "whole"), done.seconds)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The caches of all processes: kernels and tokens are made once."""
    own = tmp_path_factory.getbasetemp() / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORALET_CACHE", str(own))
        yield


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory, cache: None) -> Whole:
    place = tmp_path_factory.mktemp("whole")
    completed(place, *STUDY, "--dry-run")  # fills the caches, so that the seconds are those of training
    return _whole(place, STUDY)


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory, cache: None) -> Whole:
    return _whole(tmp_path_factory.mktemp("whole"), TRAIN)
