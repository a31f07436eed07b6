"""The linear model on words gives scikit-learn's features and probabilities, and its files give it back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from loralet.artifacts import words as files
from loralet.artifacts.words import ARRAYS, TOKENS, read_words, write_words
from loralet.errors import RunError
from loralet.tasks import words as module
from loralet.tasks.words import INVERSE_PENALTY, MOST_ITERATIONS, TOKEN, WordModel, fit_words

FP16 = 2e-2
"""Largest difference of a logit: coefficients up to about 10, rounded to 11 bits, a few of them in one row."""
FP32 = 1e-5

TEXTS = [
    "The cat sat on the mat, the cat slept.",
    "A dog RAN -- ran! -- up the hill",
    "I I I am one one-letter word",
    "Größe und Maß: ÄÖÜ äöü straße STRASSE",
    "İstanbul'da IĞDIR ışık",
    "naïve café cafe\u0301 — “quotes” … €5 £6",
    "日本語 の 文章 です。 中文句子",
    "नमस्ते दुनिया",
    "emoji 😀😀 and 🇩🇪 flags",
    "under_score x_1 3.14 1e-5",
    "tab\tnew\nline\u00a0no-break\u2003em",
    "ﬁne ligature Ⅷ ² ½",
]
TARGETS = np.arange(len(TEXTS)) % 3
UNSEEN = [*TEXTS[::-1], "", "   ", "nothing known hereabouts zzz", "cat", "the the the the", "CAT SAT ON the Mat"]


def vectorizer() -> TfidfVectorizer:
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN)


def terms(model: WordModel) -> list[str]:
    """The model's features in scikit-learn's spelling, in the model's order."""
    return [*model.tokens, *(f"{model.tokens[a]} {model.tokens[b]}" for a, b in model.pairs)]


def dense(model: WordModel, texts: list[str]) -> np.ndarray:
    counted = model.count(texts)
    out = np.zeros((len(texts), len(model.idf)), np.float32)
    out[counted.rows, counted.columns] = counted.values
    return out


def expected(oracle: TfidfVectorizer, model: WordModel, texts: list[str]) -> np.ndarray:
    found = oracle.transform(texts).toarray()
    return np.stack([found[:, oracle.vocabulary_[term]] for term in terms(model)], 1)


def test_features_are_those_of_scikit_learn() -> None:
    oracle = vectorizer().fit(TEXTS)
    model = fit_words(TEXTS, TARGETS, 3).model
    assert sorted(terms(model)) == sorted(oracle.vocabulary_)
    values = dense(model, UNSEEN)
    assert np.abs(values - expected(oracle, model, UNSEEN)).max() <= FP32
    assert (values[UNSEEN.index("")] == 0).all()
    assert np.abs(values - expected(oracle, model, UNSEEN[1:] + UNSEEN[:1])).max() > 0.1


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_features_of_any_text_are_those_of_scikit_learn(texts: list[str]) -> None:
    oracle = vectorizer().fit(TEXTS)
    model = fit_words(TEXTS, TARGETS, 3).model
    mixed = [f"{text} the cat {text}" for text in texts]
    assert np.abs(dense(model, mixed) - expected(oracle, model, mixed)).max() <= FP32


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_those_of_scikit_learn(classes: int) -> None:
    targets = np.arange(len(TEXTS)) % classes
    oracle = vectorizer().fit(TEXTS)
    machine = LogisticRegression(C=INVERSE_PENALTY, tol=1e-9, max_iter=MOST_ITERATIONS).fit(
        oracle.transform(TEXTS), targets
    )
    wanted = machine.predict_log_proba(oracle.transform(UNSEEN))
    logits = fit_words(TEXTS, targets, classes).model.logits(UNSEEN)
    found = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert np.abs(found - wanted).max() <= FP16
    assert np.abs(found - wanted[::-1]).max() > 0.1


def test_weights_of_rows_are_those_of_scikit_learn() -> None:
    weights = np.where(TARGETS == 1, 2.0, 0.5)
    fitted = fit_words(TEXTS, TARGETS, 3, weights).model
    features = vectorizer().fit(TEXTS)
    machine = LogisticRegression(C=INVERSE_PENALTY, tol=1e-9, max_iter=MOST_ITERATIONS)
    machine.fit(features.transform(TEXTS), TARGETS, weights)
    found, wanted = fitted.logits(UNSEEN), machine.decision_function(features.transform(UNSEEN))
    assert np.abs((found - found.mean(1, keepdims=True)) - (wanted - wanted.mean(1, keepdims=True))).max() <= FP16
    assert np.abs(found - fit_words(TEXTS, TARGETS, 3).model.logits(UNSEEN)).max() > 0.1


def test_a_row_of_weight_0_does_not_matter() -> None:
    weights = np.where(np.arange(len(TEXTS)) == 4, 0.0, 1.0)
    with_it = fit_words(TEXTS, TARGETS, 3, weights).model
    assert with_it == fit_words([*TEXTS[:4], *TEXTS[5:]], np.delete(TARGETS, 4), 3).model
    assert with_it != fit_words(TEXTS, TARGETS, 3).model


def test_a_single_class_has_no_coefficients() -> None:
    found = fit_words(TEXTS, TARGETS, 3, (TARGETS == 1) * 3.0).model.logits(UNSEEN)
    assert (found == found[0]).all()
    assert (found.argmax(1) == 1).all()


def test_a_class_without_rows_has_about_the_probability_of_one_row() -> None:
    model = fit_words(TEXTS, TARGETS * 2, 6).model  # classes 1, 3 and 5 have no rows
    assert (model.coefficients[:, 1] == 0).all()
    logits = model.logits(TEXTS)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.isfinite(np.log(probabilities)).all()
    assert probabilities[:, 1].mean() == pytest.approx(1 / (len(TEXTS) + 3), rel=0.3)
    assert np.array_equal(logits[:, 1], logits[:, 3])
    assert probabilities[:, [0, 2, 4]].argmax(1).tolist() == TARGETS.tolist()


def test_the_most_frequent_features_are_kept() -> None:
    texts = ["a b a b c", "a b d", "a e", "b"]
    model = fit_words(texts, np.array([0, 1, 0, 1]), 2, most_features=3).model
    assert terms(model) == ["a", "b", "a b"]
    assert "c" not in model.tokens
    assert len(fit_words(texts, np.array([0, 1, 0, 1]), 2).model.idf) > 3


def test_the_number_of_coefficients_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_COEFFICIENTS", 30)
    for classes in (2, 3):
        features = int((fit_words(TEXTS, TARGETS % classes, classes).model.idf > 0).sum())
        assert 30 - classes < features * classes <= 30


def test_features_of_many_rows_are_those_of_a_part_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inverse document frequencies are still those of all rows."""
    texts, targets = ["a b", "c d", "a e", "f g"] * 3, np.array([0, 1, 0, 1] * 3)
    assert set(fit_words(texts, targets, 2).model.tokens) == set("abcdefg")
    monkeypatch.setattr(module, "VOCABULARY_ROWS", 6)  # every second row
    model = fit_words(texts, targets, 2).model
    assert terms(model) == ["a", "b", "e", "a b", "a e"]
    assert model.idf[0] == pytest.approx(np.log((1 + 12) / (1 + 6)) + 1)


def test_a_pair_may_be_kept_without_its_tokens() -> None:
    """Tokens that are no features have an idf of 0, so they count neither as features nor in the length of a row."""
    model = WordModel(
        ("cat", "the"),
        np.array([[1, 0]], np.int32),
        np.array([2.0, 0.0, 3.0], np.float32),
        np.array([[1.0, -1.0], [5.0, 5.0], [0.5, 2.0]], np.float32),
        np.array([0.1, 0.2], np.float32),
    )
    oracle = TfidfVectorizer(vocabulary=["cat", "the cat"], ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN)
    oracle.fit(["the cat"])
    oracle.idf_ = np.array([2.0, 3.0])
    texts = ["the cat the cat cat", "the the", "cat the"]
    wanted = oracle.transform(texts) @ model.coefficients[[0, 2]] + model.intercepts
    assert np.abs(model.logits(texts) - wanted).max() <= FP32
    assert np.abs(model.logits(texts)[1] - model.intercepts).max() == 0


def test_logits_do_not_depend_on_the_other_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fit_words(TEXTS, TARGETS, 3).model
    whole = model.logits(UNSEEN)
    alone = np.concatenate([model.logits([text]) for text in UNSEEN])
    assert np.array_equal(whole, alone)
    assert np.array_equal(model.logits(pa.chunked_array([UNSEEN[:3], UNSEEN[3:]])), whole)
    monkeypatch.setattr(module, "CHUNK", 5)
    assert np.array_equal(model.logits(UNSEEN), whole)
    assert np.array_equal(model.logits(pa.chunked_array([UNSEEN[:3], UNSEEN[3:]])), whole)
    monkeypatch.setattr(module, "BLOCK", 3 * 20)  # a few rows at once, and rows that exceed it alone
    assert np.array_equal(model.logits(UNSEEN), whole)
    assert model.logits([]).shape == (0, 3)
    assert not np.array_equal(whole, whole[::-1])


def test_a_fit_is_deterministic_and_depends_on_its_rows() -> None:
    model = fit_words(TEXTS, TARGETS, 3).model
    assert model == fit_words(TEXTS, TARGETS, 3).model
    assert model != fit_words(TEXTS, TARGETS[::-1], 3).model
    assert model != fit_words(TEXTS[:-1], TARGETS[:-1], 3).model
    assert model != "model"
    assert model != replace(model, tokens=(*model.tokens[:-1], "other"))


def test_prediction_imports_neither_torch_nor_scikit_learn(tmp_path: Path) -> None:
    write_words(tmp_path, fit_words(TEXTS, TARGETS, 3).model)
    code = (
        "import sys; from pathlib import Path; from loralet.artifacts.words import read_words; "
        f"print(read_words(Path({str(tmp_path)!r}), 3).logits(['the cat']).argmax()); "
        "print(sorted({'torch', 'sklearn', 'scipy', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["0", "[]"]


def test_the_files_give_the_model_back(tmp_path: Path) -> None:
    model = fit_words(TEXTS, TARGETS, 3).model
    write_words(tmp_path, model)
    loaded = read_words(tmp_path, 3)
    assert loaded == model
    assert np.array_equal(loaded.logits(UNSEEN), model.logits(UNSEEN))
    assert load_file(tmp_path / ARRAYS)["coefficients"].dtype == np.float16
    assert "größe" in json.loads((tmp_path / TOKENS).read_text(encoding="utf-8"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [TOKENS, ARRAYS]


def _array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        arrays = load_file(folder / ARRAYS)
        arrays[name] = np.ascontiguousarray(change(arrays[name]))
        save_file(arrays, folder / ARRAYS)

    return damage


def _without(folder: Path) -> None:
    arrays = load_file(folder / ARRAYS)
    save_file({name: array for name, array in arrays.items() if name != "idf"}, folder / ARRAYS)


def _tokens(change: Callable[[list[str]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tokens = json.loads((folder / TOKENS).read_text(encoding="utf-8"))
        (folder / TOKENS).write_text(json.dumps(change(tokens)), encoding="utf-8")

    return damage


def _infinite(array: np.ndarray) -> np.ndarray:
    array[0] = np.inf
    return array


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_without, "expected coefficients, idf, intercepts, pairs"),
        (_array("idf", lambda a: a.astype(np.float64)), "idf is float64; expected float32"),
        (_array("coefficients", _infinite), "coefficients has values that are not finite"),
        (_array("idf", lambda a: a[1:]), r"idf has shape \[\d+\]; expected \[\d+\]"),
        (_array("coefficients", lambda a: a[:, :2]), r"coefficients has shape \[\d+, 2\]; expected \[\d+, 3\]"),
        (_array("intercepts", lambda a: a[:2]), r"intercepts has shape \[2\]; expected \[3\]"),
        (_array("pairs", lambda a: a + 1_000), "pairs has numbers that are not those of tokens"),
        (_array("pairs", lambda a: a - 1), "pairs has numbers that are not those of tokens"),
        (_array("pairs", lambda a: a[::-1]), "pairs is not sorted"),
        (_array("pairs", lambda a: a[:, :1]), r"pairs has shape \[\d+, 1\]; expected \[\d+, 2\]"),
        (_tokens(lambda tokens: [tokens[1], *tokens[1:]]), "contains a token twice"),
        (_tokens(lambda tokens: dict.fromkeys(tokens)), "a list of strings is expected"),
        (_tokens(lambda tokens: [1, *tokens[1:]]), "a list of strings is expected"),
        (lambda folder: (folder / TOKENS).write_text("["), "Expecting value"),
        (lambda folder: (folder / ARRAYS).write_bytes(b"x" * 100), "."),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    write_words(tmp_path, fit_words(TEXTS, TARGETS, 3).model)
    damage(tmp_path)
    with pytest.raises(ValueError, match=words):
        read_words(tmp_path, 3)


@pytest.mark.parametrize("name", [TOKENS, ARRAYS])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_words(tmp_path, fit_words(TEXTS, TARGETS, 3).model)
    (tmp_path / name).unlink()
    with pytest.raises(RunError, match=f"{name} is missing: a hybrid cannot predict without it"):
        read_words(tmp_path, 3)


def test_a_model_without_pairs_is_read(tmp_path: Path) -> None:
    model = fit_words(["a", "b", "a", "b"], np.array([0, 1, 0, 1]), 2).model
    assert len(model.pairs) == 0
    write_words(tmp_path, model)
    assert read_words(tmp_path, 2) == model
    assert model.logits(["a", "b b a"]).argmax(1).tolist() == [0, 1]
    assert model != replace(model, idf=model.idf + 1)
    assert set(files.TYPES) == {"pairs", "idf", "coefficients", "intercepts"}
