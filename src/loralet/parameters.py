"""The parameters of :class:`loralet.classifier.TextClassifier`: their option classes, types and recorded values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

import numpy as np
from sklearn.utils import check_random_state

from loralet.adapters.spec import ALL_LINEAR, AdapterSpec
from loralet.artifacts.artifact import Artifact
from loralet.config import ComputeOptions, DataOptions, TrainConfig, TrainingOptions
from loralet.config.training import BALANCED, UNWEIGHTED
from loralet.data.columns import classes_of
from loralet.errors import ConfigError
from loralet.hub.backbone import Backbone
from loralet.training.corpus import Corpus
from loralet.training.weights import class_weights, weights_by_label

GIVEN = "given in Python"
"""Recorded ``--class-weight`` of a dictionary."""


def _options() -> Iterator[tuple[str, tuple[type, Any]]]:
    """The options that are parameters of the classifier, with their option class and type.

    Other data options concern columns of files.
    """
    reading = ("validation_fraction", "split_seed", "max_length")
    rates = ("lr", "lr_ratio")
    kinds = {AdapterSpec: None, TrainingOptions: None, ComputeOptions: None, DataOptions: reading, TrainConfig: rates}
    for kind, names in kinds.items():
        hints = get_type_hints(kind)
        yield from ((name, (kind, hints[name])) for name in names or [field.name for field in fields(kind)])


OPTIONS: dict[str, tuple[type, Any]] = dict(_options())


def plain_value(value: Any) -> Any:
    """Convert a numpy scalar, such as from a parameter grid, to a Python number."""
    return value.item() if isinstance(value, np.generic) else value


def _types(name: str) -> tuple[Any, ...]:
    """The allowed types of an option."""
    wanted = OPTIONS[name][1]
    return get_args(wanted) if isinstance(wanted, UnionType) else (wanted,)


def as_option(name: str, value: Any) -> Any:
    """Convert a value to the option's type: integers to floats, lists to tuples."""
    if name == "targets":
        return tuple(value)
    if name == "class_weight":
        return UNWEIGHTED if value is None else value if isinstance(value, str) else GIVEN
    return float(value) if float in _types(name) and value is not None else value


def type_problems(name: str, value: Any) -> Iterator[str]:
    """Check the type of an option's value; on the command line the parser does this."""
    types = _types(name)
    if name == "class_weight":
        balanced = isinstance(value, str) and value == BALANCED
        if not (value is None or balanced or isinstance(value, Mapping)):
            yield f"class_weight is {value!r}: give None, {BALANCED!r} or a dictionary of a weight per class"
    elif name == "targets":
        if not isinstance(value, (list, tuple)) or not all(isinstance(target, str) for target in value):
            yield f"targets is {value!r}: give a tuple of names"
    elif value is None and NoneType in types:
        return
    elif int in types and (not isinstance(value, int) or isinstance(value, bool)):
        yield f"{name} is {value!r}: it must be a whole number"
    elif float in types and (not isinstance(value, (int, float)) or isinstance(value, bool)):
        yield f"{name} is {value!r}: it must be a number"


def _class_weight_of(artifact: Artifact) -> Mapping[Any, float] | str | None:
    made = artifact.provenance
    option = made.training.class_weight if made.training else UNWEIGHTED
    if option == BALANCED:
        return BALANCED
    if made.class_weights is None:
        return None
    return dict(zip(classes_of(artifact.labels, artifact.label_type).tolist(), made.class_weights, strict=True))


def options_of(artifact: Artifact, backbone: Backbone) -> dict[str, Any]:
    """The recorded training parameters of a loaded artifact."""
    spec, made = artifact.adapter, artifact.provenance
    known: dict[str, Any] = {"head": artifact.head, "max_length": artifact.max_length}
    known |= {field.name: getattr(spec, field.name) for field in fields(spec) if field.name != "targets"}
    if spec.targets:
        known["targets"] = (ALL_LINEAR,) if spec.targets == backbone.table.targets else spec.targets
    for options in (made.training, made.compute):
        known |= {} if options is None else {field.name: getattr(options, field.name) for field in fields(options)}
    known |= {"class_weight": _class_weight_of(artifact)}
    known.pop("backend", None)  # the backend of the training machine does not apply
    recorded = {name: getattr(made, name) for name in ("lr", "lr_ratio", "split_seed", "validation_fraction")}
    known |= {name: value for name, value in recorded.items() if value is not None}
    return known | ({} if made.seed is None else {"random_state": made.seed})


def config_of(parameters: Mapping[str, Any], seed: int) -> TrainConfig:
    """The parameters of a classifier as the options of a training.

    Args:
        parameters: values by name; others than options, and the backbone, are ignored.
        seed: the seed of the training.

    Raises:
        ConfigError: no backbone, or invalid values; one message lists all of them.
    """
    given = {name: plain_value(parameters[name]) for name in OPTIONS}
    mistyped = [words for name, value in given.items() for words in type_problems(name, value)]
    if mistyped:
        raise ConfigError.listing(mistyped)
    given = {name: as_option(name, value) for name, value in given.items()}

    def group(kind: type) -> dict[str, Any]:
        return {name: given[name] for name, (owner, _) in OPTIONS.items() if owner is kind}

    backbone = parameters["backbone"]
    config = TrainConfig(
        data="rows given in Python",
        model=str(backbone),
        seed=seed,
        **group(TrainConfig),
        adapter=AdapterSpec(**group(AdapterSpec)),
        training=TrainingOptions(**group(TrainingOptions)),
        reading=DataOptions(**group(DataOptions)),
        compute=ComputeOptions(**group(ComputeOptions)),
    )
    problems = [] if backbone else ["backbone is empty: give a folder or a hub id"]
    problems += config.problems()
    if problems:
        raise ConfigError.listing(problems)
    return config


def class_weights_of(
    given: Mapping[Any, float] | str | None, config: TrainConfig, classes: np.ndarray, corpus: Corpus
) -> tuple[float, ...] | None:
    """The weight of each class; None: all 1.

    Args:
        given: the parameter; the keys of a dictionary are classes in their original type.
        config: the options.
        classes: the classes, in the order of the task's labels.
        corpus: the data.

    Raises:
        ConfigError: a class without weight, or an unknown class.
    """
    task = corpus.dataset.task
    if not isinstance(given, Mapping):
        return class_weights(config.training.class_weight, corpus.train.targets, task)
    names = dict(zip(classes.tolist(), task.labels, strict=True))
    weights = {plain_value(name): plain_value(weight) for name, weight in given.items()}
    return weights_by_label({names.get(k, str(k)): v for k, v in weights.items()}, task.labels, "class_weight")


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """The seed of a training; drawn from a ``RandomState``, or from numpy's own for None."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
