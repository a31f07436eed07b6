"""The tests check types and shapes: ``conftest.py`` installs the checks before the package is imported."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from loralet.backends.batch import batch_of
from loralet.models.table import EncoderTable


def test_shapes_are_checked() -> None:
    ids = torch.zeros(2, 3, dtype=torch.int64)
    assert len(batch_of(ids, torch.tensor([3, 1]))) == 2
    with pytest.raises(TypeCheckError):
        batch_of(ids, torch.tensor([3, 1, 2]))


def test_types_of_modules_without_shapes_are_checked() -> None:
    sizes: dict[str, Any] = {"layers": 2, "width": 4, "heads": 2, "feed_forward": 8, "vocabulary": 9, "positions": 9}
    assert EncoderTable(**sizes).layers == 2
    with pytest.raises(BeartypeCallHintViolation):
        EncoderTable(**sizes | {"layers": "2"})
