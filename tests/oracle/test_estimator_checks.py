"""scikit-learn's checks of an estimator, each run or listed with the reason why it does not apply.

The checks fit on tables of numbers. scikit-learn runs none of them but one on an estimator of texts. A subclass reads
each row of numbers as a text, so that all checks run that do not test how numbers are validated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from models import make_pair
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import estimator_checks_generator

from loralet import TextClassifier

NUMBERS = "about tables of numbers; texts have no columns"
SPARSE = "texts are no sparse matrix"
STEPS = "needs a classifier that has learnt, and trains on numbers read as words for one step"
NOT_APPLICABLE = {
    "check_n_features_in_after_fitting": NUMBERS,
    "check_n_features_in": NUMBERS,
    "check_estimators_empty_data_messages": NUMBERS,
    "check_estimators_nan_inf": "NaN and infinity are numbers; a missing text is refused",
    "check_complex_data": "complex numbers are no texts; the check asks for a message about numbers",
    "check_estimator_sparse_tag": SPARSE,
    "check_estimator_sparse_array": SPARSE,
    "check_estimator_sparse_matrix": SPARSE,
    "check_sample_weight_equivalence_on_sparse_data": SPARSE,
    "check_array_api_input": "texts are no array of an array API",
    "check_fit1d": "requires that one-dimensional input is refused; texts are one-dimensional",
    "check_fit2d_predict1d": "requires that one-dimensional input is refused; texts are one-dimensional",
    "check_classifiers_train": STEPS,
    "check_class_weight_classifiers": STEPS,
    "check_sample_weight_equivalence_on_dense_data": (
        "repeated rows change the validation split and the batches, so that they are not equivalent to weights"
    ),
    "check_sample_weight_equivalence": "as check_sample_weight_equivalence_on_dense_data, in older versions",
    "check_estimator_tags_renamed": "run on the class itself",
}
"""The checks that are not run, with the reason."""


def texts(rows: Any) -> list[str]:
    """Rows of numbers as texts, a word for each number."""
    return [" ".join(f"w{int(abs(value) * 10) % 90}" for value in np.atleast_1d(row)) for row in np.asarray(rows)]


class OnNumbers(TextClassifier):
    """A classifier of the texts that rows of numbers stand for."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> TextClassifier:  # noqa: N803
        return super().fit(texts(X), y, sample_weight, eval_set)

    def _logits(self, rows: Any) -> np.ndarray:
        return super()._logits(texts(rows))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False
        return tags


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("checks") / "model"
    make_pair(folder)
    return str(folder)


def checks(model: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """The names of all checks, each with a call that runs it."""
    estimator = OnNumbers(model, rank=2, alpha=4.0, steps=1, hybrid="off", threads=1)
    for own, check in estimator_checks_generator(estimator):
        yield check.func.__name__, partial(check, own)


NAMES = sorted({name for name, _ in checks("model")} - set(NOT_APPLICABLE))
SLOW = (
    "check_classifier_data_not_an_array",
    "check_classifiers_classes",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_pickle",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_pipeline_consistency",
    "check_sample_weights_not_an_array",
    "check_sample_weights_pandas_series",
)
"""Checks that ``make faults`` runs."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_a_check_of_scikit_learn_passes(model: str, name: str) -> None:
    if name in SLOW and "LORALET_CHECKS" not in os.environ:
        pytest.skip("slow; make faults runs it")
    for found, run in checks(model):
        if found == name:
            run()


@pytest.mark.parametrize(
    "check",
    [
        "check_parameters_default_constructible",
        "check_no_attributes_set_in_init",
        "check_get_params_invariance",
        "check_set_params",
        "check_estimator_repr",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_estimator_cloneable",
        "check_estimator_tags_renamed",
    ],
)
def test_the_checks_without_data_pass_on_the_class_itself(check: str) -> None:
    getattr(estimator_checks, check)("TextClassifier", TextClassifier())


def test_most_checks_run_and_the_others_exist() -> None:
    assert len(NAMES) > 30
    assert "check_dict_unchanged" in NAMES, "a prediction changes no attribute"
    assert all(len(reason) > 10 for reason in NOT_APPLICABLE.values())
