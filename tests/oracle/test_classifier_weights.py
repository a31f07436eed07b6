"""Weights of classes and of rows in TextClassifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from models import make_pair
from sklearn.base import clone
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import has_fit_parameter
from test_text_classifier import LABELS, TEXTS, UNSEEN, small

from loralet import TextClassifier
from loralet.config import DataOptions
from loralet.data.columns import text_column
from loralet.data.splits import carve, copies
from loralet.errors import ConfigError, InputError

# Long trainings, most of whose lines other tests cover too; measuring them takes half as long again.
pytestmark = pytest.mark.no_cover

RARE = [i for i, label in enumerate(LABELS) if label != "cat" or i < 60]
"""Rows of which few are cats."""
SOME, THEIRS = [TEXTS[i] for i in RARE], [LABELS[i] for i in RARE]
HEAVY = {"apple": 1.0, "bird": 2.0, "cat": 20.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("weights") / "model"
    make_pair(folder)
    return str(folder)


@pytest.fixture(scope="module")
def heavy(model: str) -> TextClassifier:
    return small(model, class_weight=HEAVY).fit(SOME, THEIRS)


def cats(classifier: TextClassifier) -> float:
    """Mean probability of the rare class."""
    return float(classifier.predict_proba(UNSEEN)[:, 2].mean())


def test_a_heavier_class_is_predicted_with_a_higher_probability(model: str, heavy: TextClassifier) -> None:
    plain = small(model).fit(SOME, THEIRS)
    assert cats(heavy) > cats(plain) + 0.05
    assert plain.artifact_.provenance.class_weights is None
    assert heavy.artifact_.provenance.class_weights == (1.0, 2.0, 20.0)


def test_balanced_weights_are_those_of_scikit_learn_on_the_training_rows(model: str) -> None:
    balanced = small(model, class_weight="balanced").fit(SOME, THEIRS)
    classes, targets = np.unique(THEIRS, return_inverse=True)
    kept, _ = carve(targets, DataOptions.validation_fraction, 0, copies(text_column(SOME)))
    weights = compute_class_weight("balanced", classes=classes, y=np.array(THEIRS)[kept])
    assert balanced.artifact_.provenance.class_weights == pytest.approx(tuple(weights))
    given = small(model, class_weight=dict(zip(classes, weights, strict=True))).fit(SOME, THEIRS)
    assert (balanced.predict_proba(UNSEEN) == given.predict_proba(UNSEEN)).all()


def test_weights_of_rows_are_those_of_their_classes(model: str, heavy: TextClassifier) -> None:
    own = [HEAVY[label] for label in THEIRS]
    for weights in (own, np.array(own, np.float32), pd.Series(own)):
        by_row = small(model).fit(SOME, THEIRS, sample_weight=weights)
        assert (by_row.predict_proba(UNSEEN) == heavy.predict_proba(UNSEEN)).all()
    equal = small(model).fit(SOME, THEIRS, sample_weight=np.full(len(SOME), 0.3))
    assert (equal.predict_proba(UNSEEN) == small(model).fit(SOME, THEIRS).predict_proba(UNSEEN)).all()


def test_a_training_row_of_weight_0_does_not_matter(model: str) -> None:
    targets = np.unique(THEIRS, return_inverse=True)[1]
    kept, _ = carve(targets, DataOptions.validation_fraction, 0, copies(text_column(SOME)))
    silent = kept[::4]
    weights = np.ones(len(SOME))
    weights[silent] = 0
    other = np.array(SOME, object)
    # As many tokens, and texts that remain different, so that the same rows are held out.
    other[silent] = [" ".join(["h"] * len(text.split())) + f" w{i}" for i, text in enumerate(other[silent])]
    some = np.array(SOME, object)
    some[silent] = [f"{text} w{i}" for i, text in enumerate(some[silent])]
    results = [
        small(model).fit(list(texts), THEIRS, sample_weight=own).predict_proba(UNSEEN)
        for texts, own in ((some, weights), (other, weights), (other, None))
    ]
    assert (results[0] == results[1]).all()
    assert (results[1] != results[2]).any()


@pytest.mark.parametrize("labels", [[1, 2], [True, False], [1.0, 2.0], ["1", "2"]])
def test_keys_have_the_type_of_the_labels(model: str, tmp_path: Path, labels: list[object]) -> None:
    texts, given = ["a b", "h i", "a c", "j k"] * 4, labels * 8
    keys = {np.array(labels)[0]: 1, labels[1]: 3.5}
    fitted = small(model, steps=2, class_weight=keys).fit(texts, given)
    by_class = dict(zip(fitted.classes_.tolist(), fitted.artifact_.provenance.class_weights or (), strict=True))
    assert by_class == {labels[0]: 1.0, labels[1]: 3.5}
    fitted.save(tmp_path / "saved")
    loaded = TextClassifier.load(tmp_path / "saved")
    assert loaded.class_weight == by_class
    assert all(type(key) is type(label) for key, label in zip(sorted(loaded.class_weight), sorted(labels), strict=True))
    assert (
        clone(loaded).fit(texts, given).artifact_.provenance.class_weights == fitted.artifact_.provenance.class_weights
    )


def test_the_option_is_loaded_again(model: str, tmp_path: Path) -> None:
    for option in (None, "balanced"):
        small(model, steps=2, class_weight=option).fit(SOME, THEIRS).save(tmp_path / str(option))
        assert TextClassifier.load(tmp_path / str(option)).class_weight == option


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("balance", "class_weight is 'balance': give None, 'balanced' or a dictionary"),
        ("weights.json", "class_weight is 'weights.json': give None"),
        (np.ones(3), "class_weight is array"),
        ({"apple": 1, "bird": 1}, "label 'cat' has no weight"),
        ({"apple": 1, "bird": 1, "cat": 1, "dog": 1}, "'dog' is not a label of the data"),
        ({"apple": 0, "bird": np.nan, "cat": "1"}, "the weight of 'apple' is 0: it must be a finite number above 0"),
    ],
)
def test_invalid_weights_of_classes_are_reported(model: str, weights: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        small(model, class_weight=weights).fit(SOME, THEIRS)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0], "there are 140 texts and 1 weights"),
        ([1.0] * 139 + [-1.0], "row 140 (counted from 1), such as -1.0: a weight must be finite and not negative"),
        ([np.nan, np.inf] * 70, "such as nan"),
        ([0.0] * 140, "all weights are zero"),
        (["x"] * 140, "sample_weight: one number per text is expected"),
        (np.ones((140, 2)), "the weights have shape [140, 2]"),
        (3.0, "the weights are a float"),
    ],
)
def test_invalid_weights_of_rows_are_reported(model: str, weights: object, words: str) -> None:
    assert has_fit_parameter(TextClassifier(), "sample_weight")
    with pytest.raises(InputError) as caught:
        small(model).fit(SOME, THEIRS, sample_weight=weights)
    assert words in str(caught.value)
