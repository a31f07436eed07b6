"""Where the texts and labels are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from loralet.config.limits import seed_problems


@dataclass(frozen=True)
class DataOptions:
    """Where the texts and labels are, and how to read them."""

    text_column: str = ""
    """Column that holds the text; found by its usual names when empty."""
    label_column: str = ""
    """Column that holds the label; found by its usual names when empty."""
    columns: tuple[str, ...] = ()
    """Column names, in order, of a CSV or TSV file that has no header row."""
    label_names: tuple[str, ...] = ()
    """Names for the labels, in label order; labels are named by their own values when empty."""
    validation_fraction: float = 0.1
    """Share of the training rows kept for validation when the data has no validation split (at most 5,000 rows)."""
    split_seed: int = 0
    """Seed of the validation split and of the sample used for the frequent checks."""
    drop_overlap: bool = False
    """Remove from the training rows every text that also stands in the test split, or in a validation split of the data's own."""
    max_length: int = 128
    """Tokens kept of each text, the two special tokens included."""

    def problems(self) -> Iterator[str]:
        if not 0 < self.validation_fraction < 1:
            yield f"validation_fraction is {self.validation_fraction}: it must lie between 0 and 1"
        if self.max_length < 3:
            yield f"max_length is {self.max_length}: a text needs at least 3 tokens, two of them special"
        yield from seed_problems("split_seed", self.split_seed)
        if len(set(self.columns)) != len(self.columns):
            yield f"columns names a column twice: {', '.join(self.columns)}"
        if len(set(self.label_names)) != len(self.label_names):
            yield f"label_names gives a name twice: {', '.join(self.label_names)}"
