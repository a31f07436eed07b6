"""The page of a single run: figures of the classifier that is shipped, rows to check, and its use."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_folders import HYBRID_RUN, LABELS, NASTY, change_results, write_data, write_hybrid, write_study, write_train
from safetensors.numpy import load_file, save_file
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from loralet.cli import main, parse
from loralet.data.files import Columns
from loralet.data.sources import load_dataset
from loralet.data.splits import train_and_validation
from loralet.errors import RunError
from loralet.report.analysis import Analysis, analyse
from loralet.report.drawings import draw
from loralet.report.figures.classes import MOST_CLASSES, class_panel, shown_classes
from loralet.report.figures.confusion import confusion_panel
from loralet.report.figures.course import accuracy_limits
from loralet.report.figures.matrix import NAME_WIDTH, wrapped
from loralet.report.run.content import RunPage
from loralet.report.run.suspects import Suspects
from loralet.report.run.tables import class_table, confusion_table, model_table
from loralet.report.tables import marks_text, tables
from loralet.runs.held_out import held_out_rows
from loralet.runs.out_of_fold import NAME
from loralet.runs.record import read_record
from loralet.tasks.classes import ClassScores, Confusion
from loralet.tasks.softmax import softmax

STUDY_WORDS = (
    "only one tried", "ranks cannot be compared", "winner", "Repeat with another", "grid", "first reach", "--seed ",
    "Recommendations", "random head", "dashes",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with a test split, with folds and a test split, with folds alone, and with a validation split alone."""
    folder = tmp_path_factory.mktemp("runs")
    write_data(folder / "data")
    for name, test, folds in (
        ("test", True, False),
        ("both", True, True),
        ("folds", False, True),
        ("val", False, False),
    ):
        write_hybrid(folder / name, folder / "data", test, folds)
        assert main(["report", str(folder / name)]) == 0
    return folder


def page(place: Path, name: str, texts: bool = True) -> RunPage:
    found = analyse(place / name, texts).run
    assert found is not None
    return found


def test_the_headline_is_that_of_the_classifier_that_is_shipped(place: Path) -> None:
    for name, rows, right in (
        ("test", "60 test rows", 54),
        ("both", "60 test rows", 54),
        ("val", "3 validation rows", 54),
    ):
        told = analyse(place / name)
        own = page(place, name)
        assert told.question == f"Classifier for data: {LABELS[0]}, {LABELS[1]} and {LABELS[2]}"
        assert own.shipped == HYBRID_RUN
        assert f"{100 * right / 60:.1f}\u00a0% of {rows} correctly" in told.answer[0]
        assert own.classifier.accuracy == pytest.approx(right / 60)
        html = (place / name / "report.html").read_text()
        assert re.search(rf"<dt>accuracy on {rows}</dt><dd>{100 * right / 60:.1f}", html)
        low, high = binomtest(right, 60).proportion_ci(0.95, method="wilson")
        assert f"{100 * low:.1f}–{100 * high:.1f}" in told.answer[0]
    assert "slightly optimistic" in " ".join(analyse(place / "val").caveats)
    assert "slightly optimistic" not in " ".join(analyse(place / "test").caveats)


def test_macro_f1_is_that_of_the_classifier(place: Path) -> None:
    targets = np.arange(60) % 3
    predicted = np.where(np.arange(60) < 54, targets, (targets + 1) % 3)
    assert page(place, "test").classifier.macro_f1 == pytest.approx(f1_score(targets, predicted, average="macro"))


def test_the_star_is_on_what_is_shipped(place: Path) -> None:
    names = [line.cells[0].text for line in model_table(page(place, "test")).lines]
    assert names[-1] == "hybrid: LoRA and TF-IDF + logistic regression ★"
    assert [name for name in names if "★" in name] == names[-1:]
    assert names[:3] == ["majority class", "TF-IDF + linear SVM ≈", "TF-IDF + logistic regression ≈"]
    alone = write_train(place / "alone", place / "data")
    single = analyse(alone).run
    assert single is not None
    assert [line.cells[0].text for line in model_table(single).lines] == ["LoRA ★"]


def test_other_models_are_compared_on_the_same_rows(place: Path) -> None:
    """McNemar's exact test on nested errors, Holm-corrected: 2 rows for the SVM, 4 for LoRA, 34 for the majority."""
    versus = {row.id: row.versus for row in page(place, "test").models}
    assert versus.pop(HYBRID_RUN) is None
    expected = {"majority": (34, 4), "lora-r4-a8-lr0.0015-s0": (4, 3), "tfidf-svm": (2, 2), "tfidf-lr": (1, 1)}
    for run, (rows, factor) in expected.items():
        found = versus[run]
        assert found is not None
        assert found.difference == pytest.approx(rows / 60)
        assert found.p == pytest.approx(binomtest(rows, rows).pvalue)
        assert found.p_holm == pytest.approx(min(1.0, factor * found.p))
    assert all(row.versus is None for row in page(place, "val").models)
    assert "overlap" in analyse(place / "val").answer[1]
    out_of_fold = {row.id: row.versus for row in page(place, "folds").models}
    assert out_of_fold["tfidf-svm"] is not None
    assert out_of_fold["tfidf-svm"].difference == pytest.approx(2 / 30)
    assert out_of_fold["tfidf-lr"] is None  # its predictions are not in this folder


def test_the_weakest_class_and_its_confusion_are_named(place: Path, tmp_path: Path) -> None:
    """Of the 20 rows of the last class, 4 are predicted as the second class and one as the first."""
    folder = write_hybrid(tmp_path / "run", place / "data")
    path = folder / "predictions.safetensors"
    tensors = load_file(path)
    targets = np.arange(60) % 3
    predicted = np.where(np.isin(np.arange(60), (2, 5, 8, 11)), 1, targets)
    predicted[14] = 0
    tensors[HYBRID_RUN] = np.eye(3, dtype=np.float32)[predicted] * 0.7 + np.float32(0.1)
    save_file(tensors, path)
    told = analyse(folder).answer[-1]
    assert told.startswith(f"The weakest class is {LABELS[2]}: 75.0")
    assert "of its 20 rows are recognised (recall), and 100.0" in told
    assert told.endswith(f"{LABELS[2]} is predicted as {LABELS[1]} (4 rows).")


def numbers(found: Suspects) -> list[int]:
    return sorted(row.row for row in found.rows)


def test_likely_wrong_labels_of_all_splits_have_the_numbers_of_the_file(place: Path) -> None:
    """The last 6 test rows and the last 6 training rows are wrong; a header line comes first."""
    test, train = page(place, "both").suspects
    assert (test.split, train.split) == ("test", "out-of-fold")
    assert (numbers(test), test.count, test.unit) == ([56, 57, 58, 59, 60, 61], 6, "line")
    assert (numbers(train), train.count) == ([26, 27, 28, 29, 30, 31], 6)
    for row in (*test.rows, *train.rows):
        kind = "test" if row in test.rows else "train"
        assert row.text == f"{kind} text {row.row - 2}"
        assert row.label == LABELS[(row.row - 2) % 3]
        assert row.suggestion == LABELS[(row.row - 1) % 3]
        assert (row.given, row.suggested) == (pytest.approx(0.15, abs=1e-3), pytest.approx(0.75, abs=1e-3))
    assert [found.split for found in page(place, "folds").suspects] == ["out-of-fold"]
    md = (place / "both" / "report.md").read_text()
    assert "### Likely mislabelled test rows" in md
    assert "| 28 | train text 26 |" in md


def test_likely_wrong_labels_of_validation_rows_have_the_numbers_of_the_file(place: Path, tmp_path: Path) -> None:
    folder = write_hybrid(tmp_path / "run", place / "data", test=False)
    reading = read_record(folder).config.reading
    dataset = load_dataset(str(place / "data"), Columns())
    drawn = train_and_validation(dataset, reading.validation_fraction, reading.split_seed)[1]
    assert sorted(drawn.targets.tolist()) == [0, 1, 2]
    # The row of the first label is likely of the second one, whose own row has 0.6.
    values = np.array([[0.15, 0.75, 0.1], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]], np.float32)[drawn.targets]
    save_file({"labels": drawn.targets, HYBRID_RUN: values}, folder / "validation.safetensors")
    found = page(tmp_path, "run")
    (suspects,) = found.suspects
    row = drawn.places.rows[drawn.targets.tolist().index(0)]
    assert (suspects.split, suspects.count, suspects.total, numbers(suspects)) == ("validation", 1, 3, [row])
    assert (suspects.rows[0].label, suspects.rows[0].suggestion) == (LABELS[0], LABELS[1])
    assert suspects.rows[0].text == f"train text {row - 2}"
    assert main(["report", str(folder)]) == 0
    assert "### Likely mislabelled validation rows" in (folder / "report.md").read_text()
    assert found.confusion is not None
    assert sum(map(sum, found.confusion)) == 3
    save_file({"labels": drawn.targets[:2], HYBRID_RUN: values[:2].copy()}, folder / "validation.safetensors")
    with pytest.raises(RunError, match="2 rows, but 3 in the results"):
        analyse(folder)


def test_rows_are_shown_only_if_the_data_can_be_read_again(place: Path, tmp_path: Path) -> None:
    bare = analyse(place / "both", with_texts=False)
    assert bare.run is not None
    assert (bare.run.suspects, bare.note) == ((), "This report was made without texts.")
    assert "text 5" not in json.dumps(bare.to_json())
    assert "loralet check" in page(place, "val").note
    write_data(tmp_path / "data")
    folder = write_hybrid(tmp_path / "run", tmp_path / "data", folds=True)
    with (tmp_path / "data" / "test.csv").open("a") as file:
        file.write("one more,apple\n")
    assert "fingerprint differs" in page(tmp_path, "run").note
    (tmp_path / "data" / "train.csv").unlink()
    assert "cannot be read" in page(tmp_path, "run").note
    assert folder.exists()


def test_out_of_fold_probabilities_are_calibrated(place: Path) -> None:
    (found,) = held_out_rows(read_record(place / "folds"))
    logits = load_file(place / "folds" / NAME)[f"logits/{HYBRID_RUN}"]
    np.testing.assert_allclose(found.probabilities[HYBRID_RUN], softmax(logits / 2.0), rtol=1e-6)
    assert not np.allclose(found.probabilities[HYBRID_RUN], softmax(logits))
    assert set(found.predicted) == {HYBRID_RUN, "lora-r4-a8-lr0.0015-s0", "majority", "tfidf-svm"}


@pytest.mark.parametrize("damage", ["rows", "classes", "labels"])
def test_damaged_out_of_fold_predictions_are_refused(place: Path, tmp_path: Path, damage: str) -> None:
    folder = write_hybrid(tmp_path / "run", place / "data", test=False, folds=True)
    tensors = load_file(folder / NAME)
    if damage == "rows":
        tensors = {name: values[:-1].copy() for name, values in tensors.items()}
    elif damage == "classes":
        tensors[f"logits/{HYBRID_RUN}"] = tensors[f"logits/{HYBRID_RUN}"][:, :2].copy()
    else:
        tensors["labels"] = tensors["labels"] + 5
    save_file(tensors, folder / NAME)
    with pytest.raises(RunError, match="cannot be read as predictions"):
        analyse(folder)


def test_a_classifier_without_scores_or_members_is_one_message(place: Path, tmp_path: Path) -> None:
    folder = write_hybrid(tmp_path / "run", place / "data")
    change_results(folder, {HYBRID_RUN: {"members": ["gone", HYBRID_RUN]}})
    assert model_table(page(tmp_path, "run")).lines[-1].cells[0].text == "hybrid: hybrid ★"
    change_results(folder, {HYBRID_RUN: {"test": None, "validation": None}})
    with pytest.raises(RunError, match=f"{HYBRID_RUN} has no scores in results.json"):
        analyse(folder)


def test_without_the_predictions_of_the_hybrid_those_of_its_encoder_are_used(place: Path, tmp_path: Path) -> None:
    folder = write_hybrid(tmp_path / "run", place / "data", test=False, folds=True)
    tensors = load_file(folder / NAME)
    del tensors[f"logits/{HYBRID_RUN}"]
    save_file(tensors, folder / NAME)
    found = page(tmp_path, "run")
    assert [suspects.run for suspects in found.suspects] == ["lora-r4-a8-lr0.0015-s0"]
    assert (found.confusion, found.calibration) == (None, None)
    assert len(found.classes) == 3  # as recorded
    assert all(row.versus is None for row in found.models)


def test_the_page_has_no_sentences_of_a_study(place: Path) -> None:
    for name in ("test", "both", "folds", "val"):
        for file in ("report.html", "report.md"):
            text = (place / name / file).read_text()
            text = re.sub(r"<(style|script|svg).*?</\1>|<[^>]+>", "", text, flags=re.DOTALL)
            assert [words for words in STUDY_WORDS if words in text] == []
            assert "None" not in text
    study = write_study(place / "study", place / "data")
    assert main(["report", str(study), "--format", "md"]) == 0
    assert "winner" in (study / "report.md").read_text()


def test_the_commands_and_the_code_can_be_used(place: Path) -> None:
    folder = place / "it's a run"
    write_hybrid(folder, place / "data")
    uses = page(place, folder.name).uses
    commands = [shlex.split(line) for use in uses for line in use.code.splitlines() if line.startswith("loralet ")]
    assert [command[1] for command in commands] == ["predict", "predict", "evaluate", "export", "export"]
    for command in commands:
        assert str(folder) in command
        parse([word for word in command[1:] if word not in (">", "labelled.csv")])
    (code,) = (use.code for use in uses if "TextClassifier" in use.code)
    assert f'TextClassifier.load("{folder}")' in code
    compile(code, "snippet", "exec")
    change_results(folder, {}, text_columns=["my body"])
    assert any("--text-column 'my body'" in use.code for use in page(place, folder.name).uses)


def test_markdown_and_html_have_the_same_content(place: Path) -> None:
    for name in ("both", "val"):
        html, md = ((place / name / f"report.{ending}").read_text() for ending in ("html", "md"))
        headings = re.findall(r"<h[23]>(.*?)</h[23]>", html)
        assert headings == re.findall(r"^###? (.*)$", md, flags=re.MULTILINE)
        pictures = {Path(picture).stem for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", md)}
        assert pictures == set(re.findall(r'aria-labelledby="(\S+)-title', html))
        for block in re.findall(r"(?:^\|.*\n)+", md, flags=re.MULTILINE):
            assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1
        assert "<script>alert" not in html
        assert "<b>" not in md
    expected = ["Results", "Classes", "Largest confusions", "Confidence", "Rows to check"]
    html = (place / "both" / "report.html").read_text()
    assert re.findall(r"<h[23]>(.*?)</h[23]>", html)[:5] == expected


def test_a_text_with_markup_is_escaped(place: Path, tmp_path: Path) -> None:
    folder = write_hybrid(tmp_path / "run", place / "data")
    path = folder / "predictions.safetensors"
    tensors = load_file(path)
    tensors[HYBRID_RUN][0] = [0.05, 0.9, 0.05]  # the first test row has markup
    save_file(tensors, path)
    assert main(["report", str(folder)]) == 0
    assert any(row.text == NASTY for found in page(tmp_path, "run").suspects for row in found.rows)
    html = (folder / "report.html").read_text()
    assert "&lt;script&gt;alert" in html
    assert html.count("<script") == 1
    assert "<script>" not in (folder / "report.md").read_text()


def test_the_calibration_error_has_one_unit(place: Path) -> None:
    for name in ("test", "folds", "val"):
        text = (place / name / "report.md").read_text() + "".join(
            path.read_text() for path in (place / name / "report-figures").glob("*.svg")
        )
        found = re.findall(r"[Cc]alibration error[^.:<]*?:? (\d+\.\d+)( points)?", text)
        assert found
        assert all(len(number) == 5 and not unit for number, unit in found), found


def test_text_in_the_figures_is_readable_on_a_phone(place: Path) -> None:
    """No text below 10 units, and no figure drawn smaller than its units."""
    study = write_study(place / "grid", place / "data", seeds=(0, 1))
    for told in (analyse(place / "both"), analyse(study)):
        panels = [panel for drawing in draw(told) for panel in drawing.panels]
        assert panels
        for panel in panels:
            sizes = [float(size) for size in re.findall(r"font: (?:[a-z]+ |\d+ )*([\d.]+)px", panel.svg)]
            sizes += [float(size) for size in re.findall(r"font-size: ([\d.]+)px", panel.svg)]
            assert sizes
            assert min(sizes) >= 10, panel.name
            width = float(re.findall(r'viewBox="\S+ \S+ (\S+) ', panel.svg)[0])
            assert f'style="min-width:{width:.0f}px"' in panel.svg


def test_labels_with_invisible_characters_are_told_apart(place: Path) -> None:
    found = page(place, "test")
    classes = (replace(found.classes[0], label="apple\u200b"), *found.classes[1:])
    confusions = (Confusion("apple\u200b", "apple", 3, 0.5), *found.confusions[1:])
    shown = replace(found, classes=classes, confusions=confusions)
    for table in (class_table(shown), confusion_table(shown)):
        assert table is not None
        assert table.lines[0].cells[0].text == r"'apple\u200b'"


def test_no_label_is_cut() -> None:
    names = [
        "SearchScreeningEvent",
        "a_label-with/many_parts_that-is_long",
        "x" * 70,
        "several words of a long label",
        "b",
    ]
    for name in names:
        lines = wrapped(name).split("\n")
        assert "".join(lines).replace(" ", "") == name.replace(" ", "")
        assert max(map(len, lines)) <= NAME_WIDTH
    svg = confusion_panel(names, [[1] * 5] * 5).svg
    shown = "".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg)).replace(" ", "")
    for name in names:
        assert name.replace(" ", "") in shown or all(
            line.replace(" ", "") in shown for line in wrapped(name).split("\n")
        )
    assert "…" not in svg


def test_the_figure_of_classes_shows_the_weakest_of_many() -> None:
    classes = [ClassScores(f"class {i}", 1.0, i / 40, i / 40, 10 + i, 10) for i in range(40)]
    shown = shown_classes(classes)
    assert len(shown) == MOST_CLASSES
    assert {scores.label for scores in shown} == {f"class {i}" for i in range(MOST_CLASSES)}
    assert [scores.support for scores in shown] == sorted((scores.support for scores in shown), reverse=True)
    assert "class 3: 13 rows, 1 correct" in class_panel(classes, "rows").description
    assert accuracy_limits([0.9, None, 0.95]) == (pytest.approx(0.895), pytest.approx(0.955))
    assert accuracy_limits([1.0, 1.0]) == (pytest.approx(0.995), 1.0)


def test_in_a_study_the_star_is_on_the_hybrid_that_is_shipped(place: Path, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", place / "data")
    path = folder / "results.json"
    results = json.loads(path.read_text())
    best = next(run for run in results["runs"] if run["id"] == "lora-r4-a16-lr0.0015-s0")
    hybrid = best | {
        "id": f"hybrid-{best['id']}",
        "role": "hybrid",
        "adapter": None,
        "learning_rate": None,
        "seed": None,
    }
    plain: Analysis = analyse(folder)
    path.write_text(json.dumps(results | {"runs": [*results["runs"], hybrid]}))
    told = analyse(folder)
    names = [line.cells[0].text for line in tables(told)["results"].lines]
    assert [name for name in names if "★" in name] == ["hybrid ★"]
    assert [name for name in names if "≈" in name] == ["TF-IDF + linear SVM ≈", "r4 α8 ≈"]
    assert told.winner == plain.winner == "r4 α16"
    assert "vs r4 α16" in [heading for heading, _ in tables(told)["results"].headings]
    assert "r4 α16" in marks_text(told)
    assert "was chosen on validation" in marks_text(plain)
    assert "vs ★" in [heading for heading, _ in tables(plain)["results"].headings]
