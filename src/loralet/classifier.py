"""The public Python face: a text classifier with scikit-learn's verbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from loralet.artifacts.folder import ADAPTER_FILES, Artifact, save_artifact
from loralet.config import (
    ALL_LINEAR,
    TARGETS,
    DataOptions,
    Head,
    LoraOptions,
    Precision,
    Scaling,
    Schedule,
    TrainConfig,
    TrainingOptions,
)
from loralet.data.columns import classes_of, label_column, label_type, memory_dataset, text_column
from loralet.errors import ConfigError, InputError, TrainingError
from loralet.events import Checked, Event
from loralet.hub.backbone import Backbone
from loralet.inference.predictor import LoadedClassifier, find_adapter, open_adapter, ready
from loralet.studies.plan import plan_train
from loralet.training.corpus import settle
from loralet.training.session import make_artifact, make_bench, train_pack

Listen = Callable[[Event], None]


class TextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A LoRA adapter and a classifier on a small frozen encoder, trained by :meth:`fit`.

    The options are those of ``loralet train``, with its defaults, and the training is the same: a stratified validation part
    (``validation_fraction`` of the rows, at least one row of every class that has two) is kept back and chooses the state of the
    run that is kept. So at least one class needs two rows, and a class of a single row is trained on but never validated; with a
    handful of rows the choice among states is close to chance, and ``steps`` or ``epochs`` decide what comes out.

    Args:
        backbone: the frozen encoder: a folder or a hub id.
        rank, alpha, dropout, targets, scaling, lr: the adapter (:class:`loralet.config.LoraOptions`).
        head, head_dropout, epochs, steps, batch_size, schedule, warmup, weight_decay, clip, eval_every, validation_sample,
            target_accuracy, patience, precision, threads: the training (:class:`loralet.config.TrainingOptions`).
        validation_fraction, split_seed, max_length: the rows (:class:`loralet.config.DataOptions`).
        random_state: seed of the initial values, of dropout and of the order of the rows; a ``numpy.random.RandomState`` or None draws one.
        listen: called with every event of the training (:mod:`loralet.events`).

    Attributes:
        classes_: the labels in their own type, sorted.
        artifact_: what was learned, with the options and the validation scores.
        backbone_: the encoder it was learned on.
        history_: the checks on the validation sample, in order; empty after :meth:`load`.
    """

    def __init__(
        self,
        backbone: str = TrainConfig.model,
        *,
        rank: int = LoraOptions.rank,
        alpha: float = LoraOptions.alpha,
        dropout: float = LoraOptions.dropout,
        targets: tuple[str, ...] = LoraOptions.targets,
        scaling: Scaling = LoraOptions.scaling,
        lr: float = LoraOptions.lr,
        head: Head = TrainingOptions.head,
        head_dropout: float = TrainingOptions.head_dropout,
        epochs: float | None = TrainingOptions.epochs,
        steps: int | None = TrainingOptions.steps,
        batch_size: int = TrainingOptions.batch_size,
        schedule: Schedule = TrainingOptions.schedule,
        warmup: float = TrainingOptions.warmup,
        weight_decay: float = TrainingOptions.weight_decay,
        clip: float = TrainingOptions.clip,
        eval_every: int = TrainingOptions.eval_every,
        validation_sample: int = TrainingOptions.validation_sample,
        target_accuracy: float = TrainingOptions.target_accuracy,
        patience: int | None = TrainingOptions.patience,
        precision: Precision = TrainingOptions.precision,
        threads: int | None = TrainingOptions.threads,
        validation_fraction: float = DataOptions.validation_fraction,
        split_seed: int = DataOptions.split_seed,
        max_length: int = DataOptions.max_length,
        random_state: int | np.random.RandomState | None = TrainConfig.seed,
        listen: Listen | None = None,
    ) -> None:
        self.backbone = backbone
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.targets = targets
        self.scaling = scaling
        self.lr = lr
        self.head = head
        self.head_dropout = head_dropout
        self.epochs = epochs
        self.steps = steps
        self.batch_size = batch_size
        self.schedule = schedule
        self.warmup = warmup
        self.weight_decay = weight_decay
        self.clip = clip
        self.eval_every = eval_every
        self.validation_sample = validation_sample
        self.target_accuracy = target_accuracy
        self.patience = patience
        self.precision = precision
        self.threads = threads
        self.validation_fraction = validation_fraction
        self.split_seed = split_seed
        self.max_length = max_length
        self.random_state = random_state
        self.listen = listen

    def fit(self, X: Any, y: Any) -> TextClassifier:  # noqa: N803  # scikit-learn's name
        """Train on texts and their labels; what was fitted before is forgotten.

        Args:
            X: one string a row: a list, a numpy array, a pandas or polars Series, an Arrow column.
            y: strings, whole numbers or booleans, as many.

        Raises:
            InputError: an empty text, one class only, unlike lengths, too few rows; a ValueError.
            ConfigError: impossible options, or of the wrong type, all in one message; a ValueError.
            CheckpointError, HubError: the backbone cannot be loaded.
            TrainingError: the run diverged before its first check.
        """
        texts = text_column(X)
        classes, numbers = label_column(y, len(texts))
        config = self._config()
        if not (np.bincount(numbers) >= 2).any():
            raise InputError(
                f"{len(numbers)} rows of {len(classes)} classes are one row a class: none can be kept for validation; give more rows"
            )
        plan = plan_train(config)
        history: list[Checked] = []

        def tell(event: Event) -> None:
            history.extend([event] if isinstance(event, Checked) else [])
            if self.listen is not None:
                self.listen(event)

        with _threads(self.threads):
            corpus = settle(
                memory_dataset(texts, numbers, [str(value) for value in classes.tolist()]),
                config.reading,
                self.validation_sample,
            )
            bench = make_bench(config.model, config.training, config.reading, corpus, tell)
            row = train_pack(bench, plan.runs, tell)[0]
        if not row.tensors:
            raise TrainingError("the run diverged before its first check; lower the learning rate")
        artifact = make_artifact(row, bench, corpus, plan)
        self._hold(_typed(artifact, classes), bench.backbone)
        self.history_ = history
        return self

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Probabilities ``[rows classes]``, in the order of ``classes_``; an empty text is classified like any other.

        Raises:
            NotFittedError: neither fitted nor loaded.
            InputError: something that is not text.
        """
        check_is_fitted(self, "artifact_")
        with _threads(self.threads):
            return self._loaded().logits(text_column(X, keep_empty=True)).softmax(-1).numpy()

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The most probable label of each text, in the type that the labels were given in; errors as for :meth:`predict_proba`."""
        check_is_fitted(self, "artifact_")
        chosen: np.ndarray = self.classes_[self.predict_proba(X).argmax(1)]
        return chosen

    def save(self, folder: str | Path) -> None:
        """Write the adapter folder (:mod:`loralet.artifacts.folder`), whole or not at all, after it was loaded back and compared.

        An adapter folder that is there already is replaced.

        Raises:
            NotFittedError: neither fitted nor loaded.
            InputError: a file of that name, or a folder that holds something else than an adapter; a ValueError, and nothing is touched.
            CheckError: what was written does not compute what is in memory; nothing is kept.
        """
        check_is_fitted(self, "artifact_")
        place = Path(folder).resolve()
        if place.exists():
            strange = (
                sorted(path.name for path in place.iterdir() if path.name not in ADAPTER_FILES)
                if place.is_dir()
                else [place.name]
            )
            if strange:
                raise InputError(
                    f"{folder}: {', '.join(strange[:5])} would be lost; name a new folder, or one with nothing but an adapter in it"
                )
        save_artifact(place, self.artifact_, self.backbone_)

    @classmethod
    def load(
        cls, source: str | Path, run: str = "", force: bool = False, backbone: str = "", labels: tuple[str, ...] = ()
    ) -> TextClassifier:
        """A trained classifier: a folder that :meth:`save`, the command line or PEFT wrote, or a hub id.

        Args:
            source: an adapter folder, a run folder or a hub id.
            run: id of a run of a study; the one that validation chose when empty.
            force: take the backbone even if it is not the one that the adapter was trained on.
            backbone: where the backbone is; where the adapter says when empty.
            labels: names for the labels, in the order of the logits; the adapter's own when empty.

        Raises:
            RunError: no such folder or run, a folder without a trained classifier, another backbone than the one trained on.
            CheckpointError, HubError: adapter or backbone cannot be had.
        """
        if isinstance(labels, str):
            raise InputError(f"labels is the text {labels!r}: give a tuple of names")
        artifact, found = open_adapter(find_adapter(Path(source), run), force, labels, backbone)
        loaded = cls(found.name, **_options_of(artifact))
        loaded._hold(artifact, found)
        loaded.history_ = []
        return loaded

    def _config(self) -> TrainConfig:
        """The options as the command line has them.

        Raises:
            ConfigError: no backbone, or impossible values.
        """
        parts = {kind: {name: _plain(getattr(self, name)) for name in _NAMES[kind]} for kind in _NAMES}
        mistyped = [words for kind, given in parts.items() for words in _type_problems(kind, given)]
        if mistyped:
            raise ConfigError.listing(mistyped)
        parts = {
            kind: {
                name: float(value) if name in _FLOATS[kind] and value is not None else value
                for name, value in given.items()
            }
            for kind, given in parts.items()
        }
        lora = LoraOptions(**parts[LoraOptions] | {"targets": tuple(self.targets)})
        training, reading = TrainingOptions(**parts[TrainingOptions]), DataOptions(**parts[DataOptions])
        config = TrainConfig("rows given in Python", str(self.backbone), "", self._seed(), lora, training, reading)
        problems = [] if self.backbone else ["no backbone named: give a folder or a hub id"]
        problems += config.problems()
        if problems:
            raise ConfigError.listing(problems)
        return config

    def _seed(self) -> int:
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _hold(self, artifact: Artifact, backbone: Backbone) -> None:
        self.artifact_, self.backbone_ = artifact, backbone
        self.classes_ = classes_of(artifact.labels, artifact.label_type)
        self._classifier: LoadedClassifier | None = None

    def _loaded(self) -> LoadedClassifier:
        if self._classifier is None:
            self._classifier = ready(self.artifact_, self.backbone_)
        return self._classifier

    def __getstate__(self) -> dict[str, Any]:
        # The forward pass is a closure over the weights: it is made anew when it is next wanted.
        state: dict[str, Any] = super().__getstate__()
        return state | {"_classifier": None} if "_classifier" in state else state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False, True
        return tags


_NAMES: dict[type, tuple[str, ...]] = {
    LoraOptions: ("rank", "alpha", "dropout", "targets", "scaling", "lr"),
    TrainingOptions: tuple(TrainingOptions.__dataclass_fields__),
    DataOptions: ("validation_fraction", "split_seed", "max_length"),
}
"""The options that are parameters here. The other reading options name columns, which a list does not have."""
_FLOATS = {
    kind: {name for name in _NAMES[kind] if get_type_hints(kind)[name] in (float, float | None)} for kind in _NAMES
}
"""Those that are fractions, for which Python's users also give whole numbers."""


def _plain(value: Any) -> Any:
    """Python's own number for one of numpy's, as a grid of parameters may hold."""
    return value.item() if isinstance(value, np.generic) else value


def _type_problems(kind: type, given: dict[str, Any]) -> Iterator[str]:
    """Values that are not of their option's type, in words; the command line's parser sees to that itself."""
    wanted = get_type_hints(kind)
    for name, value in given.items():
        if name == "targets":
            if isinstance(value, str) or not all(isinstance(target, str) for target in value):
                yield f"targets is {value!r}: give a tuple of names"
            continue
        types = get_args(wanted[name]) if isinstance(wanted[name], UnionType) else (wanted[name],)
        if value is None and NoneType in types:
            continue
        if int in types and (not isinstance(value, int) or isinstance(value, bool)):
            yield f"{name} is {value!r}: it must be a whole number"
        elif float in types and (not isinstance(value, (int, float)) or isinstance(value, bool)):
            yield f"{name} is {value!r}: it must be a number"


def _typed(artifact: Artifact, classes: np.ndarray) -> Artifact:
    return replace(artifact, label_type=label_type(classes))


def _options_of(artifact: Artifact) -> dict[str, Any]:
    """The parameters that a loaded artifact was trained with, as far as it remembers them."""
    known: dict[str, Any] = {
        name: getattr(artifact, name) for name in ("rank", "alpha", "dropout", "scaling", "head", "max_length")
    }
    known |= {"targets": (ALL_LINEAR,) if artifact.targets == TARGETS else artifact.targets} if artifact.targets else {}
    remembered = artifact.training | artifact.data
    known |= {
        name: remembered[name] for name in ("lr", *_NAMES[TrainingOptions], *_NAMES[DataOptions]) if name in remembered
    }
    return known | ({"random_state": remembered["seed"]} if "seed" in remembered else {})


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """So many processor threads for the time of the block; None leaves them as they are."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
