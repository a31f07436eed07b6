"""``loralet predict``: its inputs, labels below a confidence, and what it writes."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Done, command
from models import make_pair
from test_adapters import LABELS, RUNS, trained

from loralet.artifacts.artifact import Provenance
from loralet.artifacts.folder import save_artifact
from loralet.data.texts import table_format
from loralet.inference.predictions import Prediction, abstaining
from loralet.report.predictions import output_names

TEXTS = ["a w3 w60 z", "w9", "k l m n o p q", "w1 w2 w3 w4 w5"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two adapters of random tensors: one was trained on the bundled data, by its description."""
    folder = tmp_path_factory.mktemp("predict")
    pair = make_pair(folder / "base")
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    tensors = {n: t * (20 if n == "classifier.weight" else 1) for n, t in artifact.tensors.items()}
    for name, source in (("run", "tickets.csv"), ("news", "news-mini")):
        made = replace(artifact, tensors=tensors, provenance=Provenance(source=source))
        save_artifact(folder / name, made, pair.ours)
    return folder


def run(place: Path, *arguments: str, stdin: str = "") -> Done:
    return command(place, "predict", "run", *arguments, stdin=stdin)


def objects(done: Done) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def table(done: Done) -> list[dict[str, str]]:
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


@pytest.fixture(scope="module")
def plain(place: Path) -> list[dict[str, Any]]:
    """The predictions of the texts as JSON."""
    return objects(run(place, *TEXTS, "--format", "jsonl"))


def test_texts_below_the_confidence_have_another_label_or_none(place: Path, plain: list[dict[str, Any]]) -> None:
    confidences = [max(row["probabilities"].values()) for row in plain]
    least = f"{sorted(confidences)[2]:.6f}"
    low = [value < float(least) for value in confidences]
    assert 0 < sum(low) < len(TEXTS)
    for flags, label in (([], None), (["--abstain-label", "ask a human"], "ask a human")):
        done = run(place, *TEXTS, "--format", "jsonl", "--min-confidence", least, *flags)
        wanted = [row | ({"label": label} if below else {}) for row, below in zip(plain, low, strict=True)]
        assert objects(done) == wanted
        assert f"below the confidence {float(least):g}: {sum(low)} of 4 texts" in done.stderr
    assert objects(run(place, *TEXTS, "--format", "jsonl", "--min-confidence", "0")) == plain
    rows = table(run(place, *TEXTS, "--format", "csv", "--min-confidence", least))
    assert [row["label"] == "" for row in rows] == low
    shown = run(place, *TEXTS, "--min-confidence", "1", "--abstain-label", "[b]none[/b]").stdout
    assert shown.count("[b]none[/b]") == 4


def test_a_confidence_equal_to_the_smallest_one_has_a_label() -> None:
    found = [Prediction("x", "a", (0.75, 0.25)), Prediction("y", "b", (0.25, 0.75)), Prediction("", None, None)]
    assert list(abstaining(found, 0.75, "none")) == found
    assert [p.label for p in abstaining(found, np.nextafter(0.75, 1), "none")] == ["none", "none", None]


def test_the_most_probable_labels(place: Path, plain: list[dict[str, Any]]) -> None:
    for count in (1, 2, 4, 9):
        shown = objects(run(place, *TEXTS, "--format", "jsonl", "--top-k", str(count)))
        for row, whole in zip(shown, plain, strict=True):
            ranked = sorted(whole["probabilities"].items(), key=lambda pair: -pair[1])
            assert list(row["probabilities"].items()) == ranked[:count]
            assert row["label"] == ranked[0][0]
    done = run(place, *TEXTS, "--format", "csv", "--top-k", "2")
    rows = table(done)
    assert list(rows[0]) == ["text", "label", "top_1", "probability_1", "top_2", "probability_2"]
    for row, whole in zip(rows, plain, strict=True):
        ranked = sorted(whole["probabilities"].items(), key=lambda pair: -pair[1])
        assert [(row[f"top_{i}"], float(row[f"probability_{i}"])) for i in (1, 2)] == ranked[:2]
    shown_table = run(place, *TEXTS, "--top-k", "2").stdout
    first = sorted(plain[0]["probabilities"].items(), key=lambda pair: -pair[1])
    assert f"{first[1][0]} {first[1][1]:.3f}" in shown_table


def test_labels_alone(place: Path, plain: list[dict[str, Any]]) -> None:
    labels = [row["label"] for row in plain]
    assert len(set(labels)) > 1
    given = [*TEXTS[:1], "", *TEXTS[1:]]
    wanted = [labels[0], "", *labels[1:]]
    stdin = "\n".join(given)
    assert run(place, "--labels-only", stdin=stdin).stdout == "".join(f"{label}\n" for label in wanted)
    assert table(run(place, "--labels-only", "--format", "csv", *TEXTS)) == [{"label": label} for label in labels]
    found = objects(run(place, "--labels-only", "--format", "jsonl", stdin=stdin))
    assert found == [{"label": label or None} for label in wanted]


def test_an_empty_text_has_no_label_and_is_reported_by_row(place: Path, plain: list[dict[str, Any]]) -> None:
    (place / "empty.csv").write_text('text\n"two\nlines"\n""\nw9\n"  "\n', encoding="utf-8")
    done = run(place, "--file", "empty.csv", "--format", "jsonl")
    rows = objects(done)
    assert [(row["label"], row["probabilities"]) for row in (rows[1], rows[3])] == [(None, None)] * 2
    assert rows[2]["label"] == plain[1]["label"]
    assert rows[2]["probabilities"] == pytest.approx(plain[1]["probabilities"], abs=1e-6)
    assert "no label, as the text is empty: 2 lines (4, 6)" in done.stderr
    cells = table(run(place, "--file", "empty.csv", "--format", "csv"))[1]
    assert set(cells.values()) == {""}
    assert "nan" not in run(place, "--file", "empty.csv").stdout.lower()
    alone = run(place, "", "--format", "jsonl", "--min-confidence", "0.5", "--abstain-label", "other")
    assert objects(alone) == [{"text": "", "label": None, "probabilities": None}]
    assert "row 1" in alone.stderr


COLUMNS = {"id": [7, 8, 9, 10], "text": TEXTS, "label": ["x", "y", "x", "z"], "probability_World": [1, 2, 3, 4]}


def write(folder: Path, form: str) -> Path:
    path = folder / f"table.{form}"
    rows = list(zip(*COLUMNS.values(), strict=True))
    if form == "jsonl":
        path.write_text("".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows))
    elif form == "parquet":
        pq.write_table(pa.table(COLUMNS), path)
    else:
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if form == "tsv" else ",").writerows([list(COLUMNS), *rows])
    return path


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_the_columns_of_a_table_are_kept(place: Path, plain: list[dict[str, Any]], form: str) -> None:
    path = write(place, form)
    typed = form in ("jsonl", "parquet")
    done = run(place, "--file", path.name, "--format", "jsonl")
    names = ["id", "text", "input_label", "input_probability_World"]
    for i, row in enumerate(objects(done)):
        assert list(row) == [*names, "label", "probabilities"]
        given = [values[i] if typed else str(values[i]) for values in COLUMNS.values()]
        assert [row[name] for name in names] == given
        assert {name: row[name] for name in ("text", "label")} == {name: plain[i][name] for name in ("text", "label")}
    assert (
        "written under other names: label as input_label, probability_World as input_probability_World" in done.stderr
    )
    rows = table(run(place, "--file", path.name, "--format", "csv"))
    assert list(rows[0]) == [*names, "label", *(f"probability_{label}" for label in LABELS)]
    assert [row["id"] for row in rows] == ["7", "8", "9", "10"]
    assert [row["input_label"] for row in rows] == COLUMNS["label"]
    assert [row["label"] for row in rows] == [row["label"] for row in plain]
    if form != "parquet":
        given = path.read_text()
        for arguments in (("--file", "-"), ("-",), ()):
            piped = run(place, *arguments, "--input-format", form, "--format", "jsonl", stdin=given)
            assert piped.stdout == done.stdout


def test_a_name_that_is_taken_gets_a_prefix_until_it_is_free() -> None:
    names = ["text", "label", "input_label", "top_2", "probability_3", "probability_a", "probabilities"]
    written = output_names(names, ("a", "b"))
    assert written["text"] == "text"
    assert (written["label"], written["input_label"]) == ("input_input_label", "input_label")
    assert (written["top_2"], written["probability_3"]) == ("input_top_2", "probability_3")
    assert (written["probability_a"], written["probabilities"]) == ("input_probability_a", "input_probabilities")


def test_nested_values_and_missing_cells(place: Path) -> None:
    rows = [{"text": "w9", "meta": {"a": [1]}, "note": None}, {"text": "z", "meta": {"a": [2]}, "note": "n"}]
    given = "".join(json.dumps(row) + "\n" for row in rows)
    found = objects(run(place, "-", "--input-format", "jsonl", "--format", "jsonl", stdin=given))
    assert [{name: row[name] for name in ("text", "meta", "note")} for row in found] == rows
    cells = table(run(place, "-", "--input-format", "jsonl", "--format", "csv", stdin=given))
    assert [(json.loads(row["meta"]), row["note"]) for row in cells] == [({"a": [1]}, ""), ({"a": [2]}, "n")]


def test_standard_input_is_lines_unless_it_looks_like_a_table(place: Path) -> None:
    texts = ["w9", "k l, m n", "z"]
    for arguments in (("-",), ("--file", "-"), ()):
        rows = objects(run(place, *arguments, "--format", "jsonl", stdin="\n".join(texts) + "\n"))
        assert [row["text"] for row in rows] == texts
    refused = run(place, "-", "--format", "jsonl", stdin="id,text\n1,w9\n")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert (
        "standard input, line 1: 'id,text' looks like the beginning of a table; set --input-format csv"
        in refused.stderr
    )
    lines = objects(run(place, "-", "--input-format", "lines", "--format", "jsonl", stdin="id,text\n1,w9\n"))
    assert [row["text"] for row in lines] == ["id,text", "1,w9"]
    (place / "table.txt").write_text("id,text\n1,w9\n")
    assert run(place, "--file", "table.txt").returncode == 2
    rows = objects(run(place, "--file", "table.txt", "--input-format", "csv", "--format", "jsonl"))
    assert [(row["id"], row["text"]) for row in rows] == [("1", "w9")]
    forced = objects(run(place, "--file", write(place, "csv").name, "--input-format", "lines", "--format", "jsonl"))
    assert forced[0]["text"] == ",".join(COLUMNS)


@pytest.mark.parametrize(
    ("lines", "form"),
    [
        (["id,text", "1,a"], "csv"),
        (["id;Sentence"], "csv"),
        ([' "Title" , "description"'], "csv"),
        (["id\ttext"], "tsv"),
        (["text", "a"], "csv"),
        (["text"], ""),
        (['{"text": "a"}'], "jsonl"),
        (["{text} is a placeholder"], ""),
        (["my parcel, the second one, is late", "a, b"], ""),
        (["the text of the invoice, and the box"], ""),
        (["", "text"], ""),
        (['"unclosed, text'], ""),
    ],
)
def test_lines_that_look_like_a_table(lines: list[str], form: str) -> None:
    assert table_format(lines) == form


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (("-", "more"), "", "- is standard input, and other texts are given too"),
        (("a", "--input-format", "csv"), "", "input_format is csv, and texts are given as arguments"),
        (("-", "--input-format", "csv"), "", "standard input: the file is empty"),
        (("-", "--input-format", "csv"), "id,words\n1,a\n", "standard input: no text column found"),
        (("-", "--input-format", "csv"), "text,text\n1,a\n", "standard input: 2 columns are named 'text'"),
        (("-", "--input-format", "csv"), "a,text,a\n1,b,c\n", "standard input: several columns are named 'a'"),
        (("-", "--input-format", "jsonl"), '{"text": "a"}\n{"text"\n', "standard input: line 2 is not valid JSON"),
        (("-", "--text-column", "body"), "a\n", "read as lines, which have no column 'body'"),
        (("a", "--min-confidence", "0.5", "--abstain-label", "World"), "", "abstain_label is 'World', a label of the"),
        (("a", "--abstain-label", "none"), "", "abstain_label is 'none', but no text is below --min-confidence 0"),
        (("a", "--labels-only", "--top-k", "2"), "", "labels_only prints no probabilities, and top_k is 2"),
        ((), "", "standard input: the file is empty"),
    ],
)
def test_mistakes_are_one_message(place: Path, arguments: Sequence[str], stdin: str, words: str) -> None:
    done = run(place, *arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_bytes_that_are_not_utf_8_are_reported_with_row_and_column(place: Path) -> None:
    (place / "bytes.csv").write_bytes(b"text,note\na,b\nc,\xff\n")
    done = run(place, "--file", "bytes.csv", "--format", "csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert "bytes.csv: line 3, column 'note' is not UTF-8" in done.stderr


class Terminal(io.TextIOWrapper):
    """A standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_only_a_run_trained_on_the_bundled_data_classifies_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("command_line.io.TextIOWrapper", Terminal)
    refused = run(place)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert (
        "no texts to classify: give them as arguments, in a file (--file FILE), or on standard input" in refused.stderr
    )
    both = run(place, "--also", "news")
    assert both.returncode == 2
    done = command(place, "predict", "news", "--labels-only")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 120
    assert "using the test texts of the bundled news-mini" in done.stderr


def test_a_missing_file_is_reported_before_the_model_is_loaded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("loralet.commands.predict.load_ensemble", fail)
    done = run(place, "--file", "gone.txt")
    assert (done.returncode, done.stderr.count("gone.txt")) == (2, 1)


def test_the_text_columns_of_the_training_data_are_read_again(place: Path, plain: list[dict[str, Any]]) -> None:
    """A table in which other columns have usual names, or none has."""
    described = json.loads((place / "run" / "loralet.json").read_text())
    for columns, cells in ((["words"], TEXTS), (["head", "body"], [text.split(" ", 1) for text in TEXTS])):
        name = f"trained-{len(columns)}"
        shutil.copytree(place / "run", place / name)
        made = described["provenance"] | {"text_columns": columns}
        (place / name / "loralet.json").write_text(json.dumps(described | {"provenance": made}))
        with (place / "inbox.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "subject", *columns])
            for cell in cells:
                parts = [cell] if isinstance(cell, str) else [*cell, ""][:2]
                writer.writerow(["not this", "nor this", *parts])
        done = command(place, "predict", name, "--file", "inbox.csv", "--format", "jsonl")
        assert [row["probabilities"] for row in objects(done)] == [row["probabilities"] for row in plain]
        assert f"text from column {' + '.join(map(repr, columns))}, as in training" in done.stderr
        other = command(place, "predict", name, "--file", "inbox.csv", "--text-column", "text", "--format", "jsonl")
        assert len({str(row["probabilities"]) for row in objects(other)}) == 1
        assert "as in training" not in other.stderr
        piped = command(place, "predict", name, stdin=f"{','.join([*columns, 'x'])}\na w3,b,c\n")
        assert piped.returncode == 2
        assert "looks like the beginning of a table" in piped.stderr
    (place / "plain.csv").write_text("text,label\na w3 w60 z,x\n")
    done = command(place, "predict", "trained-1", "--file", "plain.csv", "--format", "jsonl")
    assert objects(done)[0]["probabilities"] == plain[0]["probabilities"]
    assert "text from column 'text'\n" in done.stderr
    ambiguous = command(place, "predict", "run", "--file", "inbox.csv")
    assert ambiguous.returncode == 2
    assert "choose with --text-column" in ambiguous.stderr


def test_evaluate_reads_the_columns_of_the_training_data(place: Path) -> None:
    described = json.loads((place / "run" / "loralet.json").read_text())
    shutil.copytree(place / "run", place / "trained-labels")
    made = described["provenance"] | {"text_columns": ["words"], "label_column": "kind"}
    (place / "trained-labels" / "loralet.json").write_text(json.dumps(described | {"provenance": made}))
    lines = [f"{text},{LABELS[0]},no" for text in TEXTS]
    (place / "labelled.csv").write_text("\n".join(["words,kind,label", *lines]) + "\n")
    done = command(place, "evaluate", "trained-labels", "labelled.csv", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 4
    assert "label from column 'kind'" in done.stderr or "'kind'" in done.stderr
