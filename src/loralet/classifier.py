"""The public text classifier with the interface of scikit-learn."""

# ruff: noqa: E402
from __future__ import annotations

from loralet.runtime import prepare_runtime, using_threads

prepare_runtime()  # before torch is imported

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from loralet.adapters.spec import AdapterSpec, Method, Scaling
from loralet.artifacts.artifact import Artifact
from loralet.artifacts.folder import save_artifact
from loralet.artifacts.reading import ADAPTER_FILES
from loralet.backends.info import BackendChoice
from loralet.config import (
    BackboneOptions,
    ComputeOptions,
    DataOptions,
    Head,
    HybridChoice,
    ModelOptions,
    Schedule,
    TrainConfig,
    TrainingOptions,
)
from loralet.config.commands import fp32
from loralet.config.compute import Precision
from loralet.data.columns import classes_of, label_column, label_type, memory_dataset, text_column, weight_column
from loralet.errors import ConfigError, InputError, TrainingError
from loralet.events import Checked, Event
from loralet.hub.backbone import Backbone
from loralet.inference.adapters import find_adapter, opened_of
from loralet.inference.ensemble import Ensemble, ensemble_of
from loralet.inference.predictor import open_adapter
from loralet.parameters import OPTIONS, as_option, options_of, plain_value, type_problems
from loralet.ranking import SelectBy
from loralet.studies.hybrid import with_hybrid
from loralet.studies.plan import plan_train
from loralet.tasks.single_label import SingleLabel
from loralet.training.corpus import Corpus, settle
from loralet.training.packs import resolved
from loralet.training.session import make_artifact, open_session, train_pack
from loralet.training.weights import class_weights, weights_by_label

LOGGER = logging.getLogger("loralet")
"""Tells a Python user which backend trains; a warning if it is not the preferred one."""

Listen = Callable[[Event], None]


def load(
    source: str | Path, run: str = "", force: bool = False, backbone: str = "", labels: tuple[str, ...] = ()
) -> TextClassifier:
    """Load a trained classifier; the same as :meth:`TextClassifier.load`."""
    return TextClassifier.load(source, run, force, backbone, labels)


class TextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """An adapter and a classifier on a small frozen encoder, trained by :meth:`fit`.

    Options, defaults and training are those of ``loralet train --folds 0``. A stratified validation split
    (``validation_fraction`` of the rows, at least one row of every class with two rows) is held out to select the best
    state of the run. At least one class needs two rows; a class with a single row is used for training only. With very
    few rows, the selection is close to chance; set ``steps`` or ``epochs`` instead.

    Args:
        backbone: the frozen encoder: short name (``loralet models``), folder or hub id.
        method, rank, alpha, dropout, targets, scaling: the adapter (:class:`loralet.adapters.spec.AdapterSpec`).
        lr: peak learning rate.
        lr_ratio: ratio of the learning rate of B and all vectors to that of A (LoRA+).
        head, head_dropout, epochs, steps, batch_size, schedule, warmup, weight_decay, clip, eval_every,
        validation_sample, target_score, select_by, patience, hybrid: training options
            (:class:`loralet.config.TrainingOptions`).
        class_weight: weight of each class in the loss, divided by the sum over the batch: None, ``balanced`` (inverse
            frequency, as in scikit-learn), or a dictionary with a number above 0 for each class.
        backend, precision, threads: compute options (:class:`loralet.config.ComputeOptions`).
        validation_fraction, split_seed, max_length: data options (:class:`loralet.config.DataOptions`).
        random_state: seed of initial values, dropout and row order; with a
            ``numpy.random.RandomState`` or None, a seed is drawn.
        listen: called with every training event (:mod:`loralet.events`).

    Attributes:
        classes_: the sorted labels, in their original type.
        artifact_: the trained artifact, with options and validation scores.
        backbone_: the encoder.
        history_: the checks on the validation sample, in order; empty after :meth:`load`.
    """

    def __init__(
        self,
        backbone: str = TrainConfig.model,
        *,
        method: Method = AdapterSpec.method,
        rank: int = AdapterSpec.rank,
        alpha: float = AdapterSpec.alpha,
        dropout: float = AdapterSpec.dropout,
        targets: tuple[str, ...] = AdapterSpec.targets,
        scaling: Scaling = AdapterSpec.scaling,
        lr: float = TrainConfig.lr,
        lr_ratio: float = TrainConfig.lr_ratio,
        head: Head = TrainingOptions.head,
        head_dropout: float = TrainingOptions.head_dropout,
        epochs: float | None = TrainingOptions.epochs,
        steps: int | None = TrainingOptions.steps,
        batch_size: int = TrainingOptions.batch_size,
        schedule: Schedule = TrainingOptions.schedule,
        warmup: float = TrainingOptions.warmup,
        weight_decay: float = TrainingOptions.weight_decay,
        clip: float = TrainingOptions.clip,
        class_weight: Mapping[Any, float] | str | None = None,
        eval_every: int = TrainingOptions.eval_every,
        validation_sample: int = TrainingOptions.validation_sample,
        target_score: float = TrainingOptions.target_score,
        select_by: SelectBy = TrainingOptions.select_by,
        patience: int | None = TrainingOptions.patience,
        hybrid: HybridChoice = TrainingOptions.hybrid,
        backend: BackendChoice = ComputeOptions.backend,
        precision: Precision = ComputeOptions.precision,
        threads: int | None = ComputeOptions.threads,
        validation_fraction: float = DataOptions.validation_fraction,
        split_seed: int = DataOptions.split_seed,
        max_length: int | None = DataOptions.max_length,
        random_state: int | np.random.RandomState | None = TrainConfig.seed,
        listen: Listen | None = None,
    ) -> None:
        self.backbone = backbone
        self.method = method
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.targets = targets
        self.scaling = scaling
        self.lr = lr
        self.lr_ratio = lr_ratio
        self.head = head
        self.head_dropout = head_dropout
        self.epochs = epochs
        self.steps = steps
        self.batch_size = batch_size
        self.schedule = schedule
        self.warmup = warmup
        self.weight_decay = weight_decay
        self.clip = clip
        self.class_weight = class_weight
        self.eval_every = eval_every
        self.validation_sample = validation_sample
        self.target_score = target_score
        self.select_by = select_by
        self.patience = patience
        self.hybrid = hybrid
        self.backend = backend
        self.precision = precision
        self.threads = threads
        self.validation_fraction = validation_fraction
        self.split_seed = split_seed
        self.max_length = max_length
        self.random_state = random_state
        self.listen = listen

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> TextClassifier:  # noqa: N803  # scikit-learn's name
        """Train on texts and their labels. A previous fit is discarded.

        Args:
            X: one string per row: a list, a numpy array, a pandas or polars Series, or an Arrow column.
            y: labels of the same length: strings, integers or booleans.
            sample_weight: weight of each row in the loss, finite and not negative, times that of its class; None: all
                1. Validation rows are not weighted.

        Raises:
            InputError: an empty text, a single class, different lengths, invalid weights of rows, or too few rows; a
                ValueError.
            ConfigError: options with invalid values or types, all in one message, or a class without weight; a
                ValueError.
            CheckpointError, HubError: the backbone cannot be loaded.
            TrainingError: the run diverged before its first check.
        """
        texts = text_column(X)
        classes, numbers = label_column(y, len(texts))
        rows = weight_column(sample_weight, len(texts))
        config = self._config()
        if not (np.bincount(numbers) >= 2).any():
            raise InputError(
                f"y has one row per class ({len(classes)} classes), so no row can be held out; give more rows"
            )
        plan = plan_train(config)
        model = plan.runs[0].model
        history: list[Checked] = []

        def tell(event: Event) -> None:
            history.extend([event] if isinstance(event, Checked) else [])
            if self.listen is not None:
                self.listen(event)

        with using_threads(self.threads):
            task = SingleLabel(tuple(map(str, classes.tolist())))
            corpus = settle(memory_dataset(texts, numbers, task, rows), config.reading, self.validation_sample)
            corpus = replace(corpus, class_weights=self._class_weights(config, classes, corpus))
            session = open_session(
                model, corpus, config.training, config.reading, config.compute, tell, plan.methods(model)
            )
            for info in (used.backend for used in session.backends):
                LOGGER.log(logging.WARNING if info.reason else logging.INFO, "backend: %s", info)
            row = train_pack(session, [resolved(run, session.backbone.table) for run in plan.runs], tell)[0]
            if not row.tensors:
                raise TrainingError("the run diverged before its first check; lower the learning rate")
            artifact = make_artifact(row, session, corpus, plan.source, plan.reading)
            artifact = with_hybrid(artifact, row, session, corpus, tell)
        self._hold(replace(artifact, label_type=label_type(classes)), session.backbone)
        self.history_ = history
        return self

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Calibrated probabilities ``[rows classes]``, in the order of ``classes_``. Empty texts are allowed.

        Raises:
            NotFittedError: neither fitted nor loaded.
            InputError: a value that is not text.
            RunError: the logits are not finite, because the weights are damaged.
        """
        check_is_fitted(self, "artifact_")
        with using_threads(self.threads):
            loaded = self._loaded()
            found: np.ndarray = loaded.task.probabilities(loaded.logits(text_column(X, keep_empty=True)))
            return found

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The most probable label of each text, in the original label type; raises as :meth:`predict_proba`."""
        check_is_fitted(self, "artifact_")
        chosen: np.ndarray = self.classes_[self.predict_proba(X).argmax(1)]
        return chosen

    def save(self, folder: str | Path) -> None:
        """Write the adapter folder (:mod:`loralet.artifacts.folder`) atomically, after verifying the loaded folder.

        An existing adapter folder is replaced.

        Raises:
            NotFittedError: neither fitted nor loaded.
            InputError: the path is a file, or a folder with other files than an adapter; a ValueError. Nothing is
                written.
            CheckError: the written folder gives other logits than the classifier; nothing is kept.
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
                    f"{folder}: {', '.join(strange[:5])} would be lost; "
                    "give a new folder, or one that contains only an adapter"
                )
        save_artifact(place, self.artifact_, self.backbone_)

    @classmethod
    def load(
        cls, source: str | Path, run: str = "", force: bool = False, backbone: str = "", labels: tuple[str, ...] = ()
    ) -> TextClassifier:
        """Load a trained classifier that :meth:`save`, the command line or PEFT wrote.

        Args:
            source: adapter folder, run folder or hub id.
            run: run id within a study; the run selected on validation if empty.
            force: allow a backbone other than the one that the adapter was trained on.
            backbone: folder or hub id of the backbone; as recorded in the adapter if empty.
            labels: label names, in the order of the logits; the adapter's names if empty.

        Raises:
            RunError: the folder or run does not exist, has no trained classifier, or was trained on another backbone.
            CheckpointError, HubError: adapter or backbone is not available.
        """
        if isinstance(labels, str):
            raise InputError(f"labels is the string {labels!r}: give a tuple of names")
        options = ModelOptions(BackboneOptions(backbone, force), tuple(labels))
        artifact, found = open_adapter(find_adapter(Path(source), run), options)
        loaded = cls(found.name, **options_of(artifact, found))
        loaded._hold(artifact, found)
        loaded.history_ = []
        return loaded

    def _config(self) -> TrainConfig:
        """The options as a TrainConfig.

        Raises:
            ConfigError: no backbone, or invalid values.
        """
        given = {name: plain_value(getattr(self, name)) for name in OPTIONS}
        mistyped = [words for name, value in given.items() for words in type_problems(name, value)]
        if mistyped:
            raise ConfigError.listing(mistyped)
        given = {name: as_option(name, value) for name, value in given.items()}

        def group(kind: type) -> dict[str, Any]:
            return {name: given[name] for name, (owner, _) in OPTIONS.items() if owner is kind}

        config = TrainConfig(
            data="rows given in Python",
            model=str(self.backbone),
            seed=self._seed(),
            **group(TrainConfig),
            adapter=AdapterSpec(**group(AdapterSpec)),
            training=TrainingOptions(**group(TrainingOptions)),
            reading=DataOptions(**group(DataOptions)),
            compute=ComputeOptions(**group(ComputeOptions)),
        )
        problems = [] if self.backbone else ["backbone is empty: give a folder or a hub id"]
        problems += config.problems()
        if problems:
            raise ConfigError.listing(problems)
        return config

    def _class_weights(self, config: TrainConfig, classes: np.ndarray, corpus: Corpus) -> tuple[float, ...] | None:
        """The weight of each class; the keys of a dictionary are classes in their original type."""
        task = corpus.dataset.task
        if not isinstance(self.class_weight, Mapping):
            return class_weights(config.training.class_weight, corpus.train.targets, task)
        names = dict(zip(classes.tolist(), task.labels, strict=True))
        given = {plain_value(name): plain_value(weight) for name, weight in self.class_weight.items()}
        return weights_by_label({names.get(k, str(k)): v for k, v in given.items()}, task.labels, "class_weight")

    def _seed(self) -> int:
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _hold(self, artifact: Artifact, backbone: Backbone) -> None:
        self.artifact_, self.backbone_ = artifact, backbone
        self.classes_ = classes_of(artifact.labels, artifact.label_type)
        self._classifier: tuple[ComputeOptions, Ensemble] | None = None

    def _loaded(self) -> Ensemble:
        compute = replace(fp32(), backend=self.backend)
        if self._classifier is None or self._classifier[0] != compute:  # set_params may have changed the backend
            self._classifier = compute, ensemble_of({"": opened_of(self.artifact_, self.backbone_)}, compute)
        return self._classifier[1]

    def __getstate__(self) -> dict[str, Any]:
        # The forward pass holds C structures and cannot be pickled; it is rebuilt on next use.
        state: dict[str, Any] = super().__getstate__()
        return state | {"_classifier": None} if "_classifier" in state else state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False, True
        return tags
