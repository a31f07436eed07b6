"""The public text classifier with the interface of scikit-learn."""

# ruff: noqa: E402
from __future__ import annotations

from loralet.runtime import prepare_runtime, using_threads

prepare_runtime()  # before torch is imported

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.metrics import accuracy_score
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
from loralet.data.check import check_data
from loralet.data.columns import (
    classes_of,
    evaluation_split,
    label_column,
    memory_dataset,
    plain_labels,
    task_of,
    text_column,
    weight_column,
)
from loralet.data.sources import Dataset
from loralet.errors import ConfigError, InputError, TrainingError
from loralet.events import Checked, Event, Stage
from loralet.hub.backbone import Backbone
from loralet.inference.adapters import find_adapter, opened_of
from loralet.inference.ensemble import Ensemble, ensemble_of
from loralet.inference.predictor import open_adapter
from loralet.parameters import class_weights_of, config_of, options_of, seed_of
from loralet.progress.view import open_view, shows_progress
from loralet.ranking import SelectBy
from loralet.studies.hybrid import with_hybrid
from loralet.studies.plan import plan_train
from loralet.tasks.softmax import log_softmax
from loralet.training.corpus import settle
from loralet.training.loop import UNSAVED
from loralet.training.packs import resolved
from loralet.training.session import make_artifact, open_session, train_pack
from loralet.training.warm_start import WarmStart

LOGGER = logging.getLogger("loralet")
"""Tells a Python user which backend trains; a warning if it is not the preferred one."""

COLUMN_VECTOR = "A column-vector y was passed when a 1d array was expected; its only column is used"
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
        lr: peak learning rate; None: 0.003, 0.001 from width 256, 0.0005 below 500 training rows.
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
        warm_start: whether :meth:`fit` continues with the classifier of the last fit, or of :meth:`load`, instead of
            starting anew. Its classes are kept, and new ones are added.
        progress: whether to show the progress of training; None: on a terminal and in a notebook.
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
        lr: float | None = TrainConfig.lr,
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
        warm_start: bool = False,
        progress: bool | None = None,
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
        self.warm_start = warm_start
        self.progress = progress
        self.listen = listen

    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> TextClassifier:  # noqa: N803
        """Train on texts and their labels. A previous fit is discarded, unless ``warm_start`` is set.

        With ``warm_start``, adapter and head continue from their trained values; the head rows of new classes, the
        optimiser and the linear model of a hybrid start anew. Training sees only the rows of this call, so give earlier
        rows again, next to new ones, unless they may be forgotten.

        Args:
            X: one string per row, in any sequence or iterator: a list, a numpy array, a pandas or polars Series, an
                Arrow or ``datasets`` column, a generator.
            y: labels of the same length: strings, integers or booleans.
            sample_weight: weight of each row in the loss, not negative, times that of its class; None: all 1. The
                validation rows are not weighted.
            eval_set: validation rows, a pair ``(X, y)``; None: ``validation_fraction`` of the rows is held out.

        Raises:
            InputError: empty texts, a single class, different lengths, invalid weights, or too few rows.
            ConfigError: options with invalid values or types, or a class without weight.
            CheckpointError, HubError: the backbone cannot be loaded.
            TrainingError: the run diverged before its first check.
        """
        if y is None:
            raise InputError("TextClassifier requires y to be passed, but the target y is None")
        if getattr(y, "ndim", 1) == 2:
            warnings.warn(COLUMN_VECTOR, DataConversionWarning, stacklevel=2)
        texts, before = text_column(X), self._trained()
        classes, numbers = label_column(y, len(texts), self.classes_ if before else None)
        rows, held_out = weight_column(sample_weight, len(texts)), evaluation_split(eval_set, classes)
        config = config_of(vars(self), seed_of(self.random_state))
        if held_out is None and not (np.bincount(numbers) >= 2).any():
            raise InputError(
                f"y has one row per class ({len(set(numbers.tolist()))} classes), so no row can be held out; give more "
                "rows, or validation rows as eval_set"
            )
        history: list[Checked] = []
        with using_threads(self.threads), open_view(quiet=not shows_progress(self.progress)) as view:

            def tell(event: Event) -> None:
                history.extend([event] if isinstance(event, Checked) else [])
                view(event)
                if self.listen is not None:
                    self.listen(event)

            data = memory_dataset(texts, numbers, task_of(classes), rows, held_out)
            artifact, backbone = self._train(data, classes, config, before, tell)
        self._hold(artifact, backbone)
        self.history_ = history
        return self

    def _train(
        self, data: Dataset, classes: np.ndarray, config: TrainConfig, before: Artifact | None, tell: Listen
    ) -> tuple[Artifact, Backbone]:
        for line in check_data(data).lines:
            tell(Stage(line))
        corpus = settle(data, config.reading, self.validation_sample)
        corpus = replace(corpus, class_weights=class_weights_of(self.class_weight, config, classes, corpus))
        plan = plan_train(config).settled(len(corpus.train))
        model = plan.runs[0].model
        for note in plan.notes:
            tell(Stage(note))
        session = open_session(model, corpus, plan.training, config.reading, config.compute, tell, plan.methods(model))
        for info in (used.backend for used in session.backends):
            LOGGER.log(logging.WARNING if info.reason else logging.INFO, "backend: %s", info)
        runs = [resolved(r, session.backbone.table) for r in plan.suited({model: session.backbone.table.width}).runs]
        saver = self._warm_start(before, classes, session.backbone) if before else UNSAVED
        row = train_pack(session, runs, tell, saver=saver)[0]
        if not row.tensors:
            raise TrainingError("the run diverged before its first check; lower the learning rate")
        artifact = make_artifact(row, session, corpus, plan.source, plan.reading)
        return with_hybrid(artifact, row, session, corpus, tell), session.backbone

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Calibrated probabilities ``[rows classes]``, in the order of ``classes_``. Texts may be empty, or none.

        Raises:
            NotFittedError: neither fitted nor loaded.
            InputError: a value that is not text.
            RunError: the logits are not finite, because the weights are damaged.
        """
        logits = self._logits(X)
        found: np.ndarray = self._loaded().task.probabilities(logits) if len(logits) else logits
        return found

    def predict_log_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Logarithms of :meth:`predict_proba`, finite also where a probability is rounded to 0."""
        found: np.ndarray = log_softmax(self._logits(X))
        return found

    def decision_function(self, X: Any) -> np.ndarray:  # noqa: N803
        """Calibrated logits ``[rows classes]``; with two classes the log-odds of the second, ``[rows]``.

        As in scikit-learn, the class of the largest logit is predicted, and of two classes the second if the log-odds
        are above 0.
        """
        logits = self._logits(X)
        found: np.ndarray = logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits
        return found

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The most probable label of each text, in the original label type; raises as :meth:`predict_proba`."""
        numbers = self._logits(X).argmax(1)
        chosen: np.ndarray = self.classes_[numbers]
        return chosen

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """Accuracy, with texts and labels in any container that :meth:`fit` takes; raises as :meth:`predict_proba`."""
        check_is_fitted(self, "artifact_")
        return float(accuracy_score(plain_labels(y), self.predict(X), sample_weight=sample_weight))

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

    def _logits(self, texts: Any) -> np.ndarray:
        """Calibrated logits ``[rows classes]``."""
        check_is_fitted(self, "artifact_")
        column = text_column(texts, keep_empty=True)
        if not len(column):
            return np.zeros((0, len(self.classes_)), np.float32)
        with using_threads(self.threads):
            return self._loaded().logits(column)

    def _trained(self) -> Artifact | None:
        """The artifact that a warm start continues; None without one."""
        found: Artifact | None = getattr(self, "artifact_", None) if self.warm_start else None
        return found

    def _warm_start(self, before: Artifact, classes: np.ndarray, backbone: Backbone) -> WarmStart:
        if backbone.fingerprint != before.backbone_fingerprint:
            raise ConfigError(
                f"warm_start: the classifier was trained on another encoder than {backbone.name}; set its backbone, or "
                "warm_start=False"
            )
        rows = {label: i for i, label in enumerate(self.classes_.tolist())}
        return WarmStart(before.tensors, [rows.get(label) for label in classes.tolist()])

    def _hold(self, artifact: Artifact, backbone: Backbone) -> None:
        self.artifact_, self.backbone_ = artifact, backbone
        self.classes_ = classes_of(artifact.labels, artifact.label_type)
        self._ensembles: dict[ComputeOptions, Ensemble] = {}  # filled at the first prediction

    def _loaded(self) -> Ensemble:
        compute = replace(fp32(), backend=self.backend)
        found = self._ensembles.get(compute)
        if found is None:  # set_params may have changed the backend
            found = ensemble_of({"": opened_of(self.artifact_, self.backbone_)}, compute)
            self._ensembles.clear()
            self._ensembles[compute] = found
        return found

    def __getstate__(self) -> dict[str, Any]:
        # The forward pass holds C structures and cannot be pickled; it is rebuilt on next use.
        state: dict[str, Any] = super().__getstate__()
        return state | {"_ensembles": {}} if "_ensembles" in state else state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False, True
        return tags
