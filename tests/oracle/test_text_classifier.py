"""TextClassifier as a scikit-learn estimator, on the training code of the command line."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from inspect import signature
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from models import make_pair
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

import loralet
from loralet import TextClassifier
from loralet import classifier as classifier_module
from loralet.artifacts import folder as adapters
from loralet.cache import cache_folder
from loralet.cli import main
from loralet.config import AdapterSpec, ComputeOptions, DataOptions, TrainConfig, TrainingOptions
from loralet.data.files import Columns
from loralet.data.sources import load_labelled
from loralet.errors import CheckError, ConfigError, DataError, InputError, RunError, TrainingError
from loralet.events import Checked
from loralet.hub.bundled import bundled
from loralet.inference.adapters import Opened
from loralet.inference.ensemble import Ensemble, ensemble_of
from loralet.inference.predictor import load_classifier

# Long trainings, most of whose lines other tests cover too; measuring them takes half as long again.
pytestmark = pytest.mark.no_cover

WORDS = {"apple": "a b c d", "bird": "h i j k", "cat": "p q r s"}


def rows(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts of letters. Each label has its own letters, and all labels share some."""
    generator = np.random.default_rng(seed)
    labels = [list(WORDS)[i % 3] for i in range(count)]
    return [
        " ".join(generator.choice([*WORDS[label].split(), *"xyz"], generator.integers(2, 12))) for label in labels
    ], labels


TEXTS, LABELS = rows(180, 0)
UNSEEN, TRUTH = rows(60, 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("classifier") / "model"
    make_pair(folder)
    return str(folder)


def small(model: str, **options: object) -> TextClassifier:
    return TextClassifier(
        model, **({"rank": 4, "alpha": 8.0, "lr": 1e-2, "steps": 80, "batch_size": 16, "eval_every": 40} | options)
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fitted(model: str) -> TextClassifier:
    return small(model).fit(TEXTS, LABELS)


def test_importing_the_package_does_not_import_torch() -> None:
    code = (
        "import sys, loralet; print('torch' in sys.modules, 'sklearn' in sys.modules); "
        "loralet.TextClassifier; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]
    errors = ["CheckError", "CheckpointError", "ConfigError", "DataError", "HubError", "InputError", "LoraletError"]
    errors += ["RunError", "TrainingError", "UserError"]
    assert sorted(loralet.__all__) == sorted(["TextClassifier", "__version__", "load", *errors]) == dir(loralet)
    assert all(issubclass(getattr(loralet, name), loralet.LoraletError) for name in errors)
    with pytest.raises(AttributeError, match="TextClasifier"):
        loralet.TextClasifier  # noqa: B018


def test_every_training_option_is_a_parameter_with_the_same_default() -> None:
    given = {name: parameter.default for name, parameter in signature(TextClassifier).parameters.items()}
    reading = ("validation_fraction", "split_seed", "max_length")
    expected = {f.name: f.default for kind in (AdapterSpec, TrainingOptions, ComputeOptions) for f in fields(kind)}
    expected |= {f.name: f.default for f in fields(DataOptions) if f.name in reading}
    expected |= {
        "backbone": TrainConfig.model,
        "lr": TrainConfig.lr,
        "lr_ratio": 1.0,
        "random_state": TrainConfig.seed,
        "listen": None,
        "warm_start": False,
        "progress": None,
        "class_weight": None,  # as in scikit-learn; "none" on the command line
    }
    assert given == expected


def test_it_learns_and_scores(model: str, fitted: TextClassifier) -> None:
    # The mean head and three seeds: with a random encoder of this size and the pooler head, some seeds learn only the
    # letters of one label.
    scores = [
        small(model, head="mean", steps=160, random_state=seed).fit(TEXTS, LABELS).score(UNSEEN, TRUTH)
        for seed in range(3)
    ]
    assert np.mean(scores) > 0.9
    assert fitted.classes_.tolist() == sorted(WORDS)
    probabilities = fitted.predict_proba(UNSEEN)
    assert probabilities.shape == (60, 3)
    assert np.allclose(probabilities.sum(1), 1)
    assert (fitted.classes_[probabilities.argmax(1)] == fitted.predict(UNSEEN)).all()
    assert len(set(fitted.predict(UNSEEN))) == 3
    assert [event.step for event in fitted.history_] == [40, 80]
    assert fitted.artifact_.metrics["validation"].rows == 18


def test_it_trains_like_the_command_line(model: str, fitted: TextClassifier, tmp_path: Path) -> None:
    pd.DataFrame({"text": TEXTS, "label": LABELS}).to_csv(tmp_path / "train.csv", index=False)
    flags = [
        "--rank",
        "4",
        "--alpha",
        "8",
        "--lr",
        "1e-2",
        "--steps",
        "80",
        "--batch-size",
        "16",
        "--eval-every",
        "40",
        "--quiet",
        "--folds",
        "0",
    ]
    assert main(["train", str(tmp_path / "train.csv"), "--model", model, "--out", str(tmp_path / "run"), *flags]) == 0
    of_command = TextClassifier.load(tmp_path / "run")
    assert (of_command.predict_proba(UNSEEN) == fitted.predict_proba(UNSEEN)).all()
    assert of_command.artifact_.id == fitted.artifact_.id
    assert of_command.artifact_.data_fingerprint == fitted.artifact_.data_fingerprint
    other = small(model, random_state=1).fit(TEXTS, LABELS)
    assert (other.predict_proba(UNSEEN) != fitted.predict_proba(UNSEEN)).any()


def test_random_state_is_reproducible_and_none_is_random(model: str, fitted: TextClassifier) -> None:
    again = clone(fitted).fit(TEXTS, LABELS)
    assert (again.predict_proba(UNSEEN) == fitted.predict_proba(UNSEEN)).all()
    first, second = (
        small(model, steps=2, hybrid="off", random_state=None).fit(TEXTS, LABELS).predict_proba(UNSEEN)
        for _ in range(2)
    )
    assert (first != second).any()
    drawn = (
        small(model, steps=2, random_state=np.random.RandomState(5)).fit(TEXTS, LABELS).predict_proba(UNSEEN)
        for _ in range(2)
    )
    assert np.array_equal(*drawn)


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (np.array(TEXTS), np.array(LABELS)),
        (np.array(TEXTS, object)[:, None], np.array(LABELS, object)),
        (tuple(TEXTS), tuple(LABELS)),
        (pd.Series(TEXTS, index=range(5, 185)), pd.Series(LABELS, dtype="category")),
        (pd.DataFrame({"text": TEXTS}), pd.Series(LABELS)),
        (pl.Series(TEXTS), pl.Series(LABELS)),
        (pl.DataFrame({"text": TEXTS})["text"], pl.Series(LABELS, dtype=pl.Categorical)),
        (pa.array(TEXTS), pa.chunked_array([LABELS])),
    ],
    ids=["numpy", "objects", "tuples", "pandas", "frame", "polars", "categorical", "arrow"],
)
def test_any_column_gives_the_same_classifier(model: str, texts: object, labels: object) -> None:
    wanted = small(model, steps=3).fit(TEXTS, LABELS)
    got = small(model, steps=3).fit(texts, labels)
    assert (got.predict_proba(texts) == wanted.predict_proba(TEXTS)).all()
    assert got.artifact_.data_fingerprint == wanted.artifact_.data_fingerprint


@pytest.mark.parametrize(
    "values",
    [[10, 2, -3], np.array([10, 2, -3], np.int16), [True, False, True], [2.0, 1.0, 10.0], ["b", "a", "10"]],
    ids=["int", "int16", "bool", "float", "str"],
)
def test_labels_keep_their_type_and_value(model: str, tmp_path: Path, values: object) -> None:
    given = np.asarray(values)
    labels = given[[list(WORDS).index(label) for label in LABELS]]
    classifier = small(model, steps=160).fit(TEXTS, list(labels))
    predicted = classifier.predict(UNSEEN)
    assert classifier.classes_.tolist() == sorted(set(given.tolist()))
    assert predicted.dtype.kind == given.dtype.kind
    assert np.mean(predicted == given[[list(WORDS).index(label) for label in TRUTH]]) > 0.8
    classifier.save(tmp_path / "saved")
    loaded = TextClassifier.load(tmp_path / "saved")
    assert loaded.predict(UNSEEN).tolist() == predicted.tolist()
    assert loaded.classes_.dtype.kind == given.dtype.kind


def test_save_load_and_pickle_give_the_same_probabilities(fitted: TextClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "saved")
    loaded = TextClassifier.load(str(tmp_path / "saved"))
    wanted = fitted.predict_proba(UNSEEN)
    assert (loaded.predict_proba(UNSEEN) == wanted).all()
    assert (loralet.load(tmp_path / "saved").predict_proba(UNSEEN) == wanted).all()
    assert (pickle.loads(pickle.dumps(fitted)).predict_proba(UNSEEN) == wanted).all()
    assert loaded.get_params() == fitted.get_params() | {"max_length": 40}  # the size of the position embeddings
    assert loaded.history_ == []
    described = json.loads((tmp_path / "saved" / "loralet.json").read_text())
    assert described["provenance"]["training"]["steps"] == 80
    assert described["provenance"]["train_rows"] == 162


def test_a_backend_set_after_a_prediction_is_used(fitted: TextClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def watched(opened: Mapping[str, Opened], compute: ComputeOptions) -> Ensemble:
        used.append(compute.backend)
        return ensemble_of(opened, compute)

    monkeypatch.setattr(classifier_module, "ensemble_of", watched)
    classifier = pickle.loads(pickle.dumps(fitted))
    wanted = classifier.predict_proba(UNSEEN)
    classifier.predict(UNSEEN)
    classifier.set_params(backend="torch")
    assert classifier.predict_proba(UNSEEN) == pytest.approx(wanted, abs=1e-5)
    assert used == ["auto", "torch"]


def test_parameters_and_clone(model: str) -> None:
    classifier = small(model, alpha=9.0)
    copy = clone(classifier.set_params(rank=2))
    assert copy.get_params() == classifier.get_params()
    assert (copy.rank, copy.alpha) == (2, 9.0)
    assert "rank=2" in repr(copy)
    with pytest.raises(ValueError, match="ranks"):
        classifier.set_params(ranks=3)


def test_grid_search_cross_validation_and_pipeline(model: str) -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = Pipeline([("lower", lower), ("classify", small(model, steps=80, hybrid="off"))])
    shouted = [text.upper() for text in TEXTS]
    search = GridSearchCV(pipeline, {"classify__lr": [1e-7, 1e-2]}, cv=2, error_score="raise").fit(shouted, LABELS)
    assert search.best_params_ == {"classify__lr": 1e-2}
    low, high = search.cv_results_["mean_test_score"]
    assert high > low + 0.2
    scores = cross_val_score(small(model, steps=80), np.array(TEXTS), np.array(LABELS), cv=2)
    assert scores.min() > 0.7


@pytest.mark.parametrize(
    ("texts", "labels", "words"),
    [
        (["a b", " ", "c"], ["x", "y", "x"], "row 2 (counted from 1) is empty"),
        (["a", "b", "c"], ["x", "x", "x"], "only one class ('x')"),
        (["a", "b", "c"], ["x", "y"], "3 texts and 2 labels"),
        (["a", "b"], ["x", "y"], "one row per class"),
        ("a b c", ["x"], "one string"),
        ([], [], "no texts"),
        (["a", None, "b"], ["x", "y", "x"], "row 2 (counted from 1) contains NoneType, not text"),
        (["a", "caf\udce9", "b"], ["x", "y", "x"], r"row 2 (counted from 1) is not UTF-8 text: 'caf\udce9'"),
        (["a", "b", "c"], ["x", "y", "y\udce9"], r"row 3 (counted from 1) is not UTF-8 text: 'y\udce9'"),
        (["a", "b", "c"], ["x", None, "y"], "row 2 (counted from 1) has no label"),
        (["a", "b", "c"], ["x", 1, "y"], "mixed types"),
        (["a", "b", "c"], [0.5, 1.0, 2.0], "continuous"),
        (["a", "b", "c"], np.array([1j, 2, 1]), "complex128"),
        (np.array([["a", "b"]]), ["x"], "shape [1, 2]"),
        (7, ["x"], "the texts are a int"),
        ({"a": 1}, ["x"], "the texts are a dict"),
        (["a", "b", "c"], np.array([1.0, np.nan, 2.0]), "row 2 (counted from 1) has no label"),
        (["a", "b", "c"], pd.Series([1, None, 2]), "row 2 (counted from 1) has no label"),
        (["a", "b", "c"], pd.Series(["x", pd.NA, "y"]), "row 2 (counted from 1) has no label"),
        (["a", "b", "c"], [["x"], ["y"], ["x"]], "row 1 (counted from 1): labels of type list"),
    ],
)
def test_invalid_rows_are_reported(model: str, texts: object, labels: object, words: str) -> None:
    classifier = small(model)
    with pytest.raises(InputError) as caught:
        classifier.fit(texts, labels)
    assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert not hasattr(classifier, "classes_")


def test_all_invalid_options_are_reported_at_once() -> None:
    with pytest.raises(ConfigError, match="3 problems") as caught:
        TextClassifier("", rank=-1, batch_size=0).fit(TEXTS, LABELS)
    for words in ("backbone is empty", "rank is -1", "batch_size is 0"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": "Mean"}, "head is 'Mean': it must be one of auto, pooler, trained-pooler, mean"),
        ({"schedule": "Cosine"}, "schedule is 'Cosine': it must be one of linear, cosine, constant"),
        ({"scaling": "rsLoRA"}, "scaling is 'rsLoRA': it must be one of alpha/r, rslora"),
        ({"method": "adalora"}, "method is 'adalora': it must be one of lora"),
        ({"backend": "cuda"}, "backend is 'cuda': it must be one of auto, native, torch"),
        ({"precision": "fp16"}, "precision is 'fp16': it must be one of auto, fp32, bf16"),
        ({"steps": 5.5}, "steps is 5.5: it must be a whole number"),
        ({"rank": "4"}, "rank is '4': it must be a whole number"),
        ({"batch_size": True}, "batch_size is True: it must be a whole number"),
        ({"lr": "1e-3"}, "lr is '1e-3': it must be a number"),
        ({"lr_ratio": None}, "lr_ratio is None: it must be a number"),
        ({"targets": "query"}, "targets is 'query': give a tuple of names"),
        ({"targets": None}, "targets is None: give a tuple of names"),
        ({"targets": 3}, "targets is 3: give a tuple of names"),
    ],
)
def test_options_of_wrong_value_or_type_are_reported(model: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        small(model, **options).fit(TEXTS, LABELS)
    assert words in str(caught.value)
    numpys = small(model, rank=np.int64(4), lr=np.float32(1e-2), steps=2, epochs=1, targets=["query"])
    assert numpys.fit(TEXTS, LABELS).artifact_.adapter.rank == 4


def test_integers_are_accepted_for_floats(model: str, tmp_path: Path) -> None:
    small(model, alpha=8, epochs=1, steps=None, weight_decay=0).fit(TEXTS, LABELS).save(tmp_path / "adapter")
    artifact = TextClassifier.load(tmp_path / "adapter").artifact_
    assert (artifact.adapter.alpha, type(artifact.adapter.alpha)) == (8.0, float)


def test_saving_does_not_overwrite_other_files(fitted: TextClassifier, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for place, words in (("docs", "thesis.txt would be lost"), ("file", "file would be lost")):
        with pytest.raises(InputError, match=words):
            fitted.save(tmp_path / place)
    assert (tmp_path / "docs" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "a file"
    for _ in range(2):  # an existing adapter is replaced, also through a link
        fitted.save(tmp_path / "adapter")
        (tmp_path / "link").symlink_to("adapter") if not (tmp_path / "link").exists() else None
        fitted.save(tmp_path / "link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "docs", "file", "link"]
    assert (TextClassifier.load(tmp_path / "link").predict(UNSEEN) == fitted.predict(UNSEEN)).all()
    with pytest.raises(InputError, match="give a tuple of names"):
        TextClassifier.load(tmp_path / "adapter", labels="abc")
    with pytest.raises(DataError, match="another label has that name"):
        TextClassifier.load(tmp_path / "adapter", labels=("cat", "bird", "apple"))
    assert TextClassifier.load(tmp_path / "adapter", labels=("apple", "tern", "lion")).classes_.tolist() == [
        "apple",
        "tern",
        "lion",
    ]


def test_not_fitted_error_is_that_of_scikit_learn(model: str, tmp_path: Path) -> None:
    for call in (
        lambda c: c.predict(["a"]),
        lambda c: c.predict_proba(["a"]),
        lambda c: c.save(tmp_path / "x"),
        lambda c: c.score(["a"], ["b"]),
    ):
        with pytest.raises(NotFittedError):
            call(small(model))
    assert not (tmp_path / "x").exists()


def test_a_class_with_one_row_is_used_for_training(model: str) -> None:
    texts, labels = ["a b", "a c", "b c", "p q"], ["apple", "apple", "apple", "cat"]
    classifier = small(model, steps=40).fit(texts, labels)
    made = classifier.artifact_.provenance
    assert (made.train_rows, made.validation_rows) == (3, 1)
    assert classifier.classes_.tolist() == ["apple", "cat"]


def test_a_diverged_run_is_reported(model: str) -> None:
    with pytest.raises(TrainingError, match="diverged"):
        small(model, alpha=1e30, lr=1e20).fit(TEXTS, LABELS)


def test_events_are_passed_on_and_threads_restored(model: str) -> None:
    import torch

    heard: list[object] = []
    before = torch.get_num_threads()
    small(model, steps=5, eval_every=5, listen=heard.append, threads=2).fit(TEXTS, LABELS)
    assert any(isinstance(event, Checked) for event in heard)
    assert torch.get_num_threads() == before


def test_files_that_are_not_classifiers_are_never_executed(fitted: TextClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "saved")
    with pytest.raises(RunError, match="no such folder"):
        TextClassifier.load(tmp_path / "svaed")
    with pytest.raises(RunError, match="no trained classifier"):
        TextClassifier.load(str(bundled("tiny-en")))
    other = make_pair(tmp_path / "other", seed=7).folder
    with pytest.raises(RunError, match="trained on another model than"):
        TextClassifier.load(tmp_path / "saved", backbone=str(other))
    forced = TextClassifier.load(tmp_path / "saved", backbone=str(other), force=True)
    assert (forced.predict_proba(UNSEEN) != fitted.predict_proba(UNSEEN)).any()
    renamed = TextClassifier.load(tmp_path / "saved", labels=("A", "B", "C"))
    assert set(renamed.predict(UNSEEN)) == {"A", "B", "C"}
    with pytest.raises(RunError, match="2 label names"):
        TextClassifier.load(tmp_path / "saved", labels=("A", "B"))


def test_a_save_with_other_logits_than_trained_is_not_kept(
    fitted: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(tensors: dict[str, object], path: Path, **rest: object) -> None:
        written = {n: t * 1.001 if "lora_B" in n else t for n, t in tensors.items()}  # type: ignore[operator]
        real(written, path, **rest)  # type: ignore[arg-type]

    real = adapters.save_file
    monkeypatch.setattr(adapters, "save_file", spoil)
    with pytest.raises(CheckError, match=r"the files differ from the run, nothing was kept .*another sha256"):
        fitted.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    fitted.save(tmp_path / "saved")
    assert load_classifier(tmp_path / "saved").artifact.labels == tuple(sorted(WORDS))


@pytest.mark.parametrize(
    ("cells", "kind", "classes"),
    [
        (("1.0", "2.0", "10.0"), "f", [1.0, 2.0, 10.0]),
        (("1", "2", "10"), "i", [1, 2, 10]),
        (("01", "02", "10"), "U", ["01", "02", "10"]),
    ],
)
def test_a_run_of_the_command_line_keeps_the_type_of_its_labels(
    model: str, tmp_path: Path, cells: tuple[str, ...], kind: str, classes: list[object]
) -> None:
    """Trained on a CSV file, evaluated on the integers that they stand for in another format."""
    given = [cells[list(WORDS).index(label)] for label in LABELS]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"{t},{c}\n" for t, c in zip(TEXTS, given, strict=True)))
    wanted = [int(cells[list(WORDS).index(label)].partition(".")[0]) for label in LABELS]
    pd.DataFrame({"text": TEXTS, "label": wanted}).to_parquet(tmp_path / "b.parquet")
    flags = ["--rank", "4", "--alpha", "8", "--lr", "1e-2", "--steps", "40", "--quiet"]
    run = str(tmp_path / "run")
    assert main(["train", str(tmp_path / "a.csv"), "--model", model, "--out", run, *flags]) == 0
    loaded = TextClassifier.load(run)
    assert (loaded.classes_.dtype.kind, loaded.classes_.tolist()) == (kind, classes)
    task = loaded.artifact_.as_task()
    own, other = (load_labelled(str(tmp_path / name), Columns(), task) for name in ("a.csv", "b.parquet"))
    assert own.targets.tolist() == other.targets.tolist()
    assert len(set(own.targets.tolist())) == 3


def test_an_interrupted_fit_leaves_nothing_and_can_be_repeated(
    model: str, fitted: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    def stop(event: object) -> None:
        if isinstance(event, Checked):
            raise KeyboardInterrupt

    made = small(model, listen=stop)
    with pytest.raises(KeyboardInterrupt):
        made.fit(TEXTS, LABELS)
    with pytest.raises(NotFittedError):
        made.predict(UNSEEN)
    assert not [*tmp_path.rglob("*/*"), *(cache_folder() / "tokens").glob(".*")]
    again = made.set_params(listen=None).fit(TEXTS, LABELS)
    assert np.array_equal(again.predict_proba(UNSEEN), fitted.predict_proba(UNSEEN))
