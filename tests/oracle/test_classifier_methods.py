"""TextClassifier: the remaining methods of a scikit-learn classifier, warm starts, and scikit-learn's own checks."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from models import make_pair
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score

from loralet import TextClassifier
from loralet.errors import ConfigError, InputError
from loralet.progress import view as view_module
from loralet.progress.view import shows_progress

WORDS = {"apple": "a b c d", "bird": "h i j k", "cat": "p q r s", "dog": "l m n o"}


def rows(count: int, seed: int, names: tuple[str, ...] = ("apple", "bird", "cat")) -> tuple[list[str], list[str]]:
    """Texts of letters. Each label has its own letters, and all labels share some."""
    generator = np.random.default_rng(seed)
    labels = [names[i % len(names)] for i in range(count)]
    return [
        " ".join(generator.choice([*WORDS[label].split(), *"xyz"], generator.integers(2, 12))) for label in labels
    ], labels


TEXTS, LABELS = rows(180, 0)
UNSEEN, TRUTH = rows(60, 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("methods") / "model"
    make_pair(folder)
    return str(folder)


def small(model: str, **options: object) -> TextClassifier:
    given = {"rank": 4, "alpha": 8.0, "lr": 1e-2, "steps": 120, "batch_size": 16, "eval_every": 40, "head": "mean"}
    return TextClassifier(model, **(given | {"hybrid": "off"} | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fitted(model: str) -> TextClassifier:
    return small(model).fit(TEXTS, LABELS)


@pytest.fixture(scope="module")
def binary(model: str) -> TextClassifier:
    return small(model, steps=40).fit(*rows(120, 2, ("apple", "bird")))


@pytest.mark.parametrize("empty", [[], (), np.array([]), pd.Series([], dtype=str), iter(())])
def test_no_texts_give_empty_arrays_of_the_same_type_and_width(fitted: TextClassifier, empty: object) -> None:
    values = list(empty) if hasattr(empty, "__next__") else empty
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        some, none = getattr(fitted, method)(UNSEEN[:2]), getattr(fitted, method)(values)
        assert none.shape == (0, *some.shape[1:]), method
        assert none.dtype == some.dtype, method


def test_no_texts_of_two_classes(binary: TextClassifier) -> None:
    assert binary.decision_function([]).shape == (0,)
    assert binary.predict_proba([]).shape == (0, 2)


def test_decision_function_and_log_probabilities_agree_with_scipy(
    fitted: TextClassifier, binary: TextClassifier
) -> None:
    probabilities = fitted.predict_proba(UNSEEN)
    assert softmax(fitted.decision_function(UNSEEN), axis=1) == pytest.approx(probabilities, abs=1e-6)
    assert np.exp(fitted.predict_log_proba(UNSEEN)) == pytest.approx(probabilities, abs=1e-6)
    texts, labels = rows(60, 3, ("apple", "bird"))
    odds, second = binary.decision_function(texts), binary.predict_proba(texts)[:, 1]
    assert expit(odds) == pytest.approx(second, abs=1e-6)
    assert (binary.predict(texts) == binary.classes_[(odds > 0).astype(int)]).all()
    linear = LogisticRegression().fit(np.random.default_rng(0).normal(size=(60, 2)), labels)
    assert odds.shape == linear.decision_function(np.zeros((60, 2))).shape
    assert roc_auc_score(np.array(labels) == "bird", odds) == roc_auc_score(np.array(labels) == "bird", second)


def test_log_probabilities_are_finite_where_a_probability_is_0(
    fitted: TextClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitted, "_logits", lambda texts: np.array([[0.0, 500.0, 0.0]], np.float32))
    assert fitted.predict_proba(["a"]).min() == 0
    assert fitted.predict_log_proba(["a"]) == pytest.approx(np.array([[-500.0, 0.0, -500.0]]))


CONTAINERS: dict[str, Callable[[list[str]], object]] = {
    "generator": lambda values: (value for value in values),
    "dictionary values": lambda values: dict(enumerate(values)).values(),
    "pandas": lambda values: pd.Series(values, index=range(7, 7 + len(values))),
    "polars": pl.Series,
    "arrow": lambda values: pa.chunked_array([values[:20], values[20:]]),
    "numpy": lambda values: np.array(values, object),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_texts_and_labels_in_any_container_are_scored(fitted: TextClassifier, name: str) -> None:
    hold = CONTAINERS[name]
    wanted = accuracy_score(TRUTH, fitted.predict(UNSEEN))
    assert fitted.score(hold(UNSEEN), hold(TRUTH)) == wanted
    assert (fitted.predict(hold(UNSEEN)) == fitted.predict(UNSEEN)).all()


def test_a_column_of_the_datasets_library(model: str, fitted: TextClassifier) -> None:
    datasets = pytest.importorskip("datasets", reason="the datasets library is not installed")
    table = datasets.Dataset.from_dict({"text": TEXTS, "label": LABELS})
    again = small(model).fit(table["text"], table["label"])
    assert (again.predict_proba(UNSEEN) == fitted.predict_proba(UNSEEN)).all()
    assert again.score(table["text"], table["label"]) == fitted.score(TEXTS, LABELS)


def test_score_weights_rows(fitted: TextClassifier) -> None:
    weights = np.arange(60.0)
    wanted = accuracy_score(TRUTH, fitted.predict(UNSEEN), sample_weight=weights)
    assert fitted.score(UNSEEN, TRUTH, sample_weight=weights) == wanted


def test_an_evaluation_set_is_the_validation_split(model: str) -> None:
    for given in ((UNSEEN, TRUTH), [(UNSEEN, TRUTH)]):
        made = small(model, steps=40).fit(TEXTS, LABELS, eval_set=given)
        origin = made.artifact_.provenance
        assert (origin.train_rows, origin.validation_rows) == (180, 60)
        measured = made.artifact_.metrics["validation"]
        assert measured.scores["accuracy"] == pytest.approx(made.score(UNSEEN, TRUTH))
    lone = small(model, steps=4).fit(["a b", "p q"], ["apple", "cat"], eval_set=(UNSEEN[::3], TRUTH[::3]))
    assert lone.artifact_.provenance.train_rows == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((UNSEEN, ["unknown"] * 60), "eval_set: 'unknown' is no label"),
        ((UNSEEN, TRUTH[:5]), "60 texts and 5 labels"),
        (UNSEEN, "eval_set=(X, y)"),
        ((UNSEEN, [1] * 60), "use one type"),
        (([], []), "no texts"),
    ],
)
def test_an_invalid_evaluation_set_is_reported(model: str, given: object, words: str) -> None:
    with pytest.raises(InputError) as caught:
        small(model).fit(TEXTS, LABELS, eval_set=given)
    assert words in str(caught.value)


def test_a_warm_start_continues_with_the_trained_parameters(model: str, fitted: TextClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "saved")
    loaded = TextClassifier.load(tmp_path / "saved").set_params(warm_start=True, steps=1, lr=1e-9, warmup=0.0)
    before = fitted.artifact_.tensors
    continued = loaded.fit(TEXTS, LABELS)
    for name, tensor in continued.artifact_.tensors.items():
        assert np.allclose(tensor, before[name], atol=1e-6), name
    anew = small(model, steps=1, lr=1e-9, warmup=0.0).fit(TEXTS, LABELS)
    assert not np.allclose(anew.artifact_.tensors["classifier.weight"], before["classifier.weight"], atol=1e-3)
    assert (continued.predict(UNSEEN) == fitted.predict(UNSEEN)).all()


def test_a_warm_start_needs_fewer_rows_than_a_fresh_start(model: str, fitted: TextClassifier) -> None:
    """Twelve rows of each of three seeds, from a classifier that has seen others."""
    scores = []
    for seed in (10, 11, 12):
        few = rows(12, seed)
        warm = pickle.loads(pickle.dumps(fitted)).set_params(warm_start=True, steps=20, random_state=seed).fit(*few)
        fresh = small(model, steps=20, random_state=seed).fit(*few)
        scores.append((warm.score(UNSEEN, TRUTH), fresh.score(UNSEEN, TRUTH)))
    warm, fresh = np.mean(scores, axis=0)
    assert warm > fresh + 0.1
    assert warm > fitted.score(UNSEEN, TRUTH) - 0.1


def test_a_warm_start_adds_classes(fitted: TextClassifier) -> None:
    new = rows(16, 20, ("dog",))
    texts, labels = [*TEXTS[:60], *new[0]], [*LABELS[:60], *new[1]]
    made = pickle.loads(pickle.dumps(fitted)).set_params(warm_start=True, steps=80).fit(texts, labels)
    assert made.classes_.tolist() == ["apple", "bird", "cat", "dog"]
    assert made.artifact_.tensors["classifier.weight"].shape[0] == 4
    assert made.score(*rows(40, 21, ("dog",))) > 0.8
    assert made.score(UNSEEN, TRUTH) > 0.8
    # a class of its own, before all others, moves the head rows of the others
    still = pickle.loads(pickle.dumps(fitted)).set_params(warm_start=True, steps=1, lr=1e-9)
    still.fit(new[0], ["ant"] * 16)
    assert still.classes_.tolist() == ["ant", "apple", "bird", "cat"]
    kept = still.artifact_.tensors["classifier.weight"][1:]
    assert np.allclose(kept, fitted.artifact_.tensors["classifier.weight"], atol=1e-6)


@pytest.mark.parametrize("changed", [{"rank": 2}, {"targets": ("query",)}, {"head": "trained-pooler"}])
def test_a_warm_start_with_other_parameters_is_refused(fitted: TextClassifier, changed: dict[str, object]) -> None:
    classifier = pickle.loads(pickle.dumps(fitted)).set_params(warm_start=True, **changed)
    with pytest.raises(ConfigError, match="warm_start: the trained classifier has another rank"):
        classifier.fit(TEXTS, LABELS)
    assert classifier.predict(UNSEEN).tolist() == fitted.predict(UNSEEN).tolist(), "the classifier is unchanged"


def test_a_warm_start_on_another_encoder_or_label_type_is_refused(fitted: TextClassifier, tmp_path: Path) -> None:
    make_pair(tmp_path / "other", seed=7)
    classifier = pickle.loads(pickle.dumps(fitted)).set_params(warm_start=True, backbone=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="another encoder"):
        classifier.fit(TEXTS, LABELS)
    with pytest.raises(InputError, match="use one type"):
        classifier.fit(TEXTS, list(range(3)) * 60)


def test_labels_of_a_warm_start_are_values(model: str) -> None:
    numbers = [1.0 + list(WORDS).index(label) for label in LABELS]
    classifier = small(model, steps=2).fit(TEXTS, [int(number) for number in numbers])
    classifier.set_params(warm_start=True).fit(TEXTS, numbers)
    assert (classifier.classes_.tolist(), classifier.classes_.dtype.kind) == ([1, 2, 3], "i")


def test_without_warm_start_a_fit_starts_anew(model: str, fitted: TextClassifier) -> None:
    again = pickle.loads(pickle.dumps(fitted)).fit(TEXTS, LABELS)
    assert (again.predict_proba(UNSEEN) == fitted.predict_proba(UNSEEN)).all()
    assert small(model, warm_start=True, steps=2).fit(TEXTS, LABELS).classes_.tolist() == ["apple", "bird", "cat"]


def test_joblib_keeps_a_fitted_classifier(fitted: TextClassifier, tmp_path: Path) -> None:
    joblib.dump(fitted, tmp_path / "classifier.joblib")
    loaded = joblib.load(tmp_path / "classifier.joblib")
    assert (loaded.predict_proba(UNSEEN) == fitted.predict_proba(UNSEEN)).all()
    assert loaded.get_params() == fitted.get_params()


def test_progress_is_shown_on_request_and_by_default_on_a_terminal(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small(model, steps=2).fit(TEXTS, LABELS)
    assert capsys.readouterr() == ("", "")
    small(model, steps=2, progress=True).fit(TEXTS, LABELS)
    out, err = capsys.readouterr()
    assert out == ""
    assert "training lora-r4" in err
    for terminal, jupyter, worker in ((True, False, False), (False, True, False), (True, False, True)):
        console = type("Console", (), {"is_terminal": terminal, "is_jupyter": jupyter})
        monkeypatch.setattr(view_module, "terminal", lambda stderr, console=console: console)
        monkeypatch.setattr(view_module.multiprocessing, "parent_process", lambda worker=worker: worker or None)
        assert shows_progress(None) is not worker
        assert shows_progress(False) is False
