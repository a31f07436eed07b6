"""Backbones that work well, with short names. The command ``loralet models``, ``--model`` and the docs read this list.

Facts are those of the published checkpoints; a fact that is not certain is None. Figures are those of the committed
benchmarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loralet.hub.bundled import MODEL, SMALL

ENGLISH = "English"
CLOSENESS = 0.6
"""Smallest similarity of a name that is suggested (ratio of :class:`difflib.SequenceMatcher`; its default)."""


@dataclass(frozen=True)
class KnownModel:
    """A backbone.

    Args:
        name: short name, for ``--model``.
        source: hub id; the short name for a bundled backbone.
        parameters: number of parameters of the encoder in millions.
        longest: longest text in tokens.
        languages: languages of its training texts.
        licence: licence of the weights, by SPDX.
        rows_per_second: training rows per second of one run on two CPU cores, by a backbone of this architecture
            (benchmarks/speed.json), rounded to hundreds.
        league: mean test accuracy of ``loralet train`` on ten data sets (benchmarks/league.json, with its commit).
    """

    name: str
    source: str
    parameters: float
    longest: int
    languages: str
    licence: str
    rows_per_second: int | None = None
    league: float | None = None

    @property
    def bundled(self) -> bool:
        """Whether it comes with loralet."""
        return self.name == self.source


MODELS: tuple[KnownModel, ...] = (
    KnownModel(MODEL, MODEL, 4.4, 512, ENGLISH, "Apache-2.0", 4300, 0.7875),
    KnownModel(SMALL, SMALL, 15.4, 512, ENGLISH, "Apache-2.0"),
    KnownModel("bert-tiny", "google/bert_uncased_L-2_H-128_A-2", 4.4, 512, ENGLISH, "Apache-2.0", 4300),
    KnownModel("bert-mini", "google/bert_uncased_L-4_H-256_A-4", 11.2, 512, ENGLISH, "Apache-2.0"),
    KnownModel("electra-small", "google/electra-small-discriminator", 13.5, 512, ENGLISH, "Apache-2.0"),
    KnownModel("minilm-l6", "sentence-transformers/all-MiniLM-L6-v2", 22.7, 512, ENGLISH, "Apache-2.0"),
    KnownModel("minilm-l12", "sentence-transformers/all-MiniLM-L12-v2", 33.4, 512, ENGLISH, "Apache-2.0"),
    KnownModel("bge-small", "BAAI/bge-small-en-v1.5", 33.4, 512, ENGLISH, "MIT"),
    KnownModel("distilbert-base", "distilbert/distilbert-base-uncased", 66.4, 512, ENGLISH, "Apache-2.0"),
    KnownModel("mpnet-base", "sentence-transformers/all-mpnet-base-v2", 109.5, 512, ENGLISH, "Apache-2.0"),
    KnownModel(
        "multilingual-minilm",
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        117.7,
        512,
        "more than 50",
        "Apache-2.0",
    ),
    KnownModel("modernbert-base", "answerdotai/ModernBERT-base", 149.0, 8192, "English, code", "Apache-2.0"),
    KnownModel("xlm-roberta-base", "FacebookAI/xlm-roberta-base", 278.0, 512, "100", "MIT"),
)
"""The bundled backbones first, then by size."""

SOURCES = {model.name: model.source for model in MODELS}


def resolve_model(name: str) -> str:
    """The hub id of a short name, with its revision. Other names, and names of existing files, are unchanged."""
    short, mark, revision = name.partition("@")
    return name if Path(name).exists() else SOURCES.get(short, short) + mark + revision


def near_names(name: str) -> list[str]:
    """Short names similar to a name or to the last part of a hub id, the most similar first."""
    from difflib import get_close_matches

    wanted = name.rpartition("/")[2].lower()
    known = {candidate.lower(): model.name for model in MODELS for candidate in _names(model)}
    close = get_close_matches(wanted, known, n=6, cutoff=CLOSENESS)
    return list(dict.fromkeys(known[match] for match in close))[:3]


def _names(model: KnownModel) -> tuple[str, str]:
    return model.name, model.source.rpartition("/")[2]


def suggestion(name: str) -> str:
    """The end of a message about a backbone that cannot be found; empty if no short name is similar."""
    near = [] if name in SOURCES.values() else near_names(name)
    return f"; did you mean {' or '.join(near)}? loralet models lists all short names" if near else ""
