"""Teaching: a student is trained on the mean probabilities of larger classifiers, for rows with and without labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from loralet.cache import cache_folder
from loralet.config import ComputeOptions, ModelOptions, TeachConfig
from loralet.data.arrays import read_arrays, write_arrays
from loralet.data.sources import Split, hash_texts
from loralet.distil.texts import read_texts
from loralet.errors import ConfigError, RunError
from loralet.events import Stage
from loralet.inference.adapters import Opened, read_adapter
from loralet.inference.ensemble import Ensemble, ensemble_of
from loralet.inference.predictions import CHUNK
from loralet.runs.resume import SplitHash
from loralet.tasks.single_label import SingleLabel
from loralet.tasks.teaching import taught, taught_targets
from loralet.training.corpus import Corpus, Rows, split_rows
from loralet.training.session import Listen, Session
from loralet.training.weights import RowWeights


@dataclass(frozen=True)
class Teaching:
    """What a student learns from, besides its labelled rows.

    Args:
        teachers: adapter folders of classifiers with the student's labels.
        unlabelled: files of texts without labels.
        text_column: text column of these files; found by its usual names if empty.
        mixtures: synthetic texts per text.
        temperature, soft_weight: see :class:`loralet.tasks.teaching.Taught`.
        seed: seed of the synthetic texts.
    """

    teachers: tuple[Path, ...]
    unlabelled: tuple[str, ...]
    text_column: str
    mixtures: int
    temperature: float
    soft_weight: float
    seed: int


@dataclass(frozen=True)
class Lesson:
    """The training rows of a student.

    Args:
        texts: texts of the labelled rows, then those without labels, then synthetic ones.
        logits: logits ``[m c]`` of the teachers, in the order of the student's labels.
        names: the teachers, as results name them.
        unlabelled: number of texts without labels, synthetic ones not counted.
        inputs: hashes of the teachers and of the texts without labels.
    """

    texts: pa.ChunkedArray
    logits: Float[np.ndarray, "m c"]
    names: tuple[str, ...]
    unlabelled: int
    inputs: tuple[SplitHash, ...]


def teaching_of(config: TeachConfig, teachers: Sequence[Path]) -> Teaching:
    """The options, with the adapter folders of the teachers."""
    return Teaching(
        tuple(teachers),
        config.unlabelled,
        config.reading.columns.text_column,
        config.mixtures,
        config.temperature,
        config.soft_weight,
        config.seed,
    )


def prepare_lesson(teaching: Teaching, corpus: Corpus, compute: ComputeOptions, listen: Listen) -> Lesson:
    """Read the texts without labels, mix texts, and let the teachers classify all of them.

    Args:
        teaching: the teachers and their texts.
        corpus: the labelled data.
        compute: backend and precision of the teachers.
        listen: called with stages.

    Raises:
        ConfigError: the data are pairs of texts.
        DataError: a file cannot be read.
        RunError: a teacher has other labels, or cannot be read.
    """
    if corpus.train.seconds is not None:
        raise ConfigError("teaching reads single texts, not pairs: use loralet train")
    opened = {str(path): read_adapter(path, ModelOptions()) for path in teaching.teachers}
    ensemble = ensemble_of(opened, compute)
    order = _order(ensemble, corpus)
    for note in _notes(opened, corpus):
        listen(Stage(note))
    texts, unlabelled = corpus.train.texts, 0
    inputs = [SplitHash(f"the teacher {path}", _hash_of(Path(path), one)) for path, one in opened.items()]
    if teaching.unlabelled:
        found = read_texts(teaching.unlabelled, teaching.text_column).texts
        unlabelled = len(found)
        inputs.append(SplitHash(", ".join(teaching.unlabelled), hash_texts(found).hexdigest()))
        texts = pa.chunked_array([*texts.chunks, *found.chunks], pa.string())
    if teaching.mixtures:
        mixed = mix_texts(texts.to_pylist(), teaching.mixtures, teaching.seed)
        texts = pa.chunked_array([*texts.chunks, pa.array(mixed, pa.string())], pa.string())
    count = f"{len(opened)} teacher{'s' if len(opened) > 1 else ''}"
    synthetic = len(texts) - len(corpus.train) - unlabelled
    listen(
        Stage(
            f"{count}: classifying {len(corpus.train):,} training rows, {unlabelled:,} texts without labels and "
            f"{synthetic:,} mixtures"
        )
    )
    names = tuple(f"{one.artifact.id} on {one.artifact.backbone}" for one in opened.values())
    return Lesson(texts, _classified(ensemble, texts, inputs)[:, order], names, unlabelled, tuple(inputs))


def teach(session: Session, corpus: Corpus, teaching: Teaching, lesson: Lesson) -> Session:
    """A session whose training rows are those of a lesson.

    Args:
        session: session of the student on the labelled rows.
        corpus: the labelled data.
        teaching: the options.
        lesson: the rows.
    """
    assert isinstance(session.task, SingleLabel)
    task = taught(session.task, teaching.temperature, teaching.soft_weight)
    whole = Split("the texts of the teachers", lesson.texts, np.zeros(len(lesson.texts), np.int64))
    tokens = split_rows(whole, session.backbone, session.lengths.max_length).tokens
    targets = torch.from_numpy(taught_targets(task, lesson.logits, corpus.train.targets))
    weights = session.rows.train.weights.rows
    if weights is not None:  # class weights; their mean is 1
        weights = torch.cat([weights, weights.new_ones(len(tokens) - len(weights))])
    rows = Rows(tokens, targets, RowWeights(weights))
    return replace(
        session,
        task=task,
        rows=replace(session.rows, train=rows),
        teachers=lesson.names,
        unlabelled=lesson.unlabelled,
    )


def mix_texts(texts: Sequence[str], copies: int, seed: int) -> list[str]:
    """Synthetic texts: the first words of a text joined to the last words of another.

    Args:
        texts: the texts.
        copies: synthetic texts per text.
        seed: seed of the draw.

    Returns:
        ``copies * len(texts)`` texts; each begins with at least one word of a text that has words.
    """
    generator = np.random.default_rng([seed, copies])
    words = [text.split() for text in texts]
    mixed: list[str] = []
    for _ in range(copies):
        others = generator.permutation(len(words))
        for first, second, (cut, rest) in zip(words, others, generator.random((len(words), 2)), strict=True):
            other = words[second]
            mixed.append(" ".join([*first[: 1 + int(cut * len(first))], *other[int(rest * len(other)) :]]))
    return mixed


def _order(ensemble: Ensemble, corpus: Corpus) -> list[int]:
    """The place of each label of the data among those of the teachers."""
    wanted, own = corpus.dataset.task.labels, ensemble.labels
    if set(wanted) != set(own):
        raise RunError(
            f"the teachers' labels are {', '.join(own)}, those of the data {', '.join(wanted)}; "
            "they must be the same: give other teachers, or set --label-names as in their training"
        )
    return [own.index(label) for label in wanted]


def _notes(opened: dict[str, Opened], corpus: Corpus) -> list[str]:
    """A line for every teacher that was trained on other rows, and may know the validation rows."""
    wanted = corpus.dataset.fingerprint
    return [
        f"{path} was trained on other data; if these contain validation rows, the validation scores are too high"
        for path, one in opened.items()
        if one.artifact.data_fingerprint != wanted
    ]


def _hash_of(folder: Path, one: Opened) -> str:
    """Hash of a teacher: of the files of its adapter folder, and of its encoder."""
    digest = hashlib.sha256(one.checkpoint.fingerprint.encode())
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _classified(ensemble: Ensemble, texts: pa.ChunkedArray, inputs: Sequence[SplitHash]) -> Float[np.ndarray, "m c"]:
    """Logits of the teachers, from the cache if they classified these texts before."""
    digest = hash_texts(texts)
    for value in (*(part.sha256 for part in inputs), *ensemble.backends, *ensemble.labels):
        digest.update(value.encode())
    path = cache_folder() / "teaching" / f"{digest.hexdigest()}.arrays"
    found = read_arrays(path)
    if found is not None and len(found) == 1 and found[0].shape == (len(texts), len(ensemble.labels)):
        return np.array(found[0])
    parts = [ensemble.logits(texts.slice(start, CHUNK)) for start in range(0, len(texts), CHUNK)]
    logits = np.concatenate(parts).astype(np.float32)
    write_arrays(path, [logits])
    return logits
