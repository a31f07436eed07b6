"""The commands, on a small data set with a small random model."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import command as run
from models import make_pair
from safetensors.numpy import load_file

from loralet.backends.base import memory_errors
from loralet.cli import COMMANDS, main
from loralet.runs.results import read_results
from loralet.runs.selection import chosen_run

LABELS = ("apple", "bird", "cat")
WORDS = {"apple": "a b c d", "bird": "h i j k", "cat": "p q r s"}


def write_rows(path: Path, count: int, seed: int) -> None:
    """Texts of letters. Each label has its own letters, and all labels share some."""
    generator = np.random.default_rng(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(count):
            label = LABELS[i % 3]
            words = generator.choice([*WORDS[label].split(), *"xyz"], generator.integers(2, 12))
            writer.writerow([" ".join(words), label])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    make_pair(folder / "model")
    (folder / "data").mkdir()
    write_rows(folder / "data" / "train.csv", 300, 0)
    write_rows(folder / "data" / "test.csv", 90, 1)
    return folder


@pytest.fixture(scope="module")
def studied(place: Path) -> Path:
    done = run(
        place, "study", "data", "--models", "model", "--ranks", "2", "4", "--alphas", "8", "--lrs", "1e-2",
        "--no-default", "--seeds", "0", "1", "--full", "--full-lr", "3e-3", "--steps", "100", "--batch-size", "16",
        "--eval-every", "10", "--target-score", "0.6", "--targets", "all-linear", "--out", "grid",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "majority class" in done.stdout
    assert "the test split was read once" in done.stdout
    return place / "grid"


def test_study_writes_results_of_schema_2(studied: Path) -> None:
    results = json.loads((studied / "results.json").read_text())
    assert {k: results[k] for k in ("schema", "kind", "test_reads")} == {"schema": 2, "kind": "study", "test_reads": 1}
    data = results["data"]
    assert (data["source"], data["train_rows"], data["validation_rows"], data["test_rows"]) == ("data", 270, 30, 90)
    assert data["labels"] == list(LABELS)
    roles = [r["role"] for r in results["runs"]]
    assert {role: roles.count(role) for role in set(roles) - {"hybrid"}} == {
        "majority": 1, "tfidf-svm": 1, "tfidf-lr": 1, "random-head": 2, "linear-probe": 2, "lora": 4, "full": 2,
    }  # fmt: skip
    assert roles.count("hybrid") <= 1
    by_role = {r["role"]: r for r in results["runs"]}
    assert by_role["majority"]["test"]["accuracy"] == pytest.approx(1 / 3)
    assert by_role["random-head"]["test"]["accuracy"] < 0.7
    assert max(entry["test"]["accuracy"] for entry in results["runs"] if entry["role"] == "lora") > 0.9
    assert by_role["lora"]["converged_step"] % 10 == 0
    for entry in results["runs"]:
        assert (
            entry["test"]["accuracy_low"] < entry["test"]["accuracy"] < entry["test"]["accuracy_high"]
            or entry["test"]["accuracy"] == 1
        )
    assert len({entry["id"] for entry in results["runs"]}) == len(results["runs"])


def test_saved_predictions_match_the_scores_in_the_results(studied: Path) -> None:
    tensors = load_file(studied / "predictions.safetensors")
    labels = tensors.pop("labels")
    runs = json.loads((studied / "results.json").read_text())["runs"]
    without = ("majority", "tfidf-svm")
    assert set(tensors) == {f"predicted/{row['id']}" if row["role"] in without else row["id"] for row in runs}
    for row in runs:
        classes = tensors[f"predicted/{row['id']}"] if row["role"] in without else tensors[row["id"]].argmax(1)
        assert (classes == labels).mean() == pytest.approx(row["test"]["accuracy"]), row["id"]


def test_study_writes_every_event_and_the_environment(studied: Path) -> None:
    events = [json.loads(line) for line in (studied / "metrics.jsonl").read_text().splitlines()]
    packs = [e for e in events if e["event"] == "PackStarted"]
    assert [len(p["runs"]) for p in packs] == [
        3,
        3,
        1,
        1,
    ]  # one pack per seed, a separate one for full fine-tuning; longest first
    steps = [e for e in events if e["event"] == "Stepped"]
    assert len(steps) == 4 * 100
    assert min(steps[99]["losses"]) < 0.5 < min(steps[0]["losses"])
    assert json.loads((studied / "environment.json").read_text())["command"][:3] == ["loralet", "study", "data"]


GRID = (
    "data",
    "--no-default",
    "--models",
    "model",
    "--ranks",
    "2",
    "4",
    "--alphas",
    "8",
    "16",
    "--steps",
    "24",
    "--batch-size",
    "16",
    "--eval-every",
    "6",
)


def test_a_dry_run_prints_the_plan_and_writes_nothing(place: Path) -> None:
    before = sorted(place.iterdir())
    done = run(place, "study", *GRID, "--seeds", "0", "1", "--dry-run", "--out", "dry")
    assert done.returncode == 0, done.stderr
    assert "plan: 10 runs in 2 packs, 24 steps of 16 rows, 270 training rows; about" in done.stdout
    assert "pack 2: probe-s1, lora-r2-a8-lr0.001-s1" in done.stdout
    assert "training pack" not in done.stderr
    assert sorted(place.iterdir()) == before


def test_halving_and_json_events(place: Path) -> None:
    done = run(place, "study", *GRID, "--halving", "--memory", "1", "--json-events", "--out", "halved")
    assert (done.returncode, done.stderr) == (0, "")
    *events, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert last == {"event": "Finished", "folder": "halved"}
    assert events == [json.loads(line) for line in (place / "halved" / "metrics.jsonl").read_text().splitlines()]
    assert [(e["step"], len(e["runs"]), e["kept"]) for e in events if e["event"] == "Halved"] == [(3, 4, 2), (6, 2, 1)]
    (planned,) = [e for e in events if e["event"] == "Planned"]
    assert planned["budget_bytes"] == 2**30
    assert (planned["halving"], planned["stopping"]) == (True, False)
    assert [start for start, _ in planned["packs"][0]["shares"]] == [0, 3, 6, 12]
    runs = json.loads((place / "halved" / "results.json").read_text())["runs"]
    halved = [r for r in runs if r["status"] == "halved"]
    assert sorted(r["steps"] for r in halved) == [3, 3, 6]
    assert all(r["validation"] and r["test"] and r["role"] == "lora" for r in halved)
    assert run(place, "show", "halved").stdout.count(" halved") == 3
    assert "halving = true" in (place / "halved" / "config.toml").read_text()


def test_a_study_writes_its_report_on_request(place: Path) -> None:
    done = run(place, "study", *GRID, "--report", "--quiet", "--out", "told")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("report: ")] == [
        f"report: {Path('told', name)}" for name in ("report.html", "report.md", "report-figures")
    ]
    assert "</html>" in (place / "told" / "report.html").read_text(encoding="utf-8")
    planned = run(place, "study", *GRID, "--report", "--dry-run", "--out", "planned")
    assert planned.returncode == 0, planned.stderr
    assert not (place / "planned").exists()


def test_a_single_run_stops_at_its_target_on_request(place: Path) -> None:
    given = (
        "train",
        "data",
        "--model",
        "model",
        "--rank",
        "2",
        "--steps",
        "24",
        "--batch-size",
        "16",
        "--eval-every",
        "6",
        "--target-accuracy",
        "0.1",
        "--folds",
        "0",
        "--hybrid",
        "off",
    )
    ends = []
    for name, flags in (("whole", ()), ("stopped", ("--stop-at-target",))):
        done = run(place, *given, *flags, "--quiet", "--out", name)
        assert done.returncode == 0, done.stderr
        *_, entry = json.loads((place / name / "results.json").read_text())["runs"]
        ends.append((entry["status"], entry["steps"], entry["converged_step"]))
    assert ends == [("finished", 24, 6), ("early-stopped", 6, 6)]
    again = run(place, "train", "--config", "stopped/config.toml", "--quiet", "--out", "stopped-again")
    assert again.returncode == 0, again.stderr
    assert json.loads((place / "stopped-again" / "results.json").read_text())["runs"][-1]["steps"] == 6


def test_show_adapters_and_predict_agree(studied: Path, place: Path) -> None:
    chosen = chosen_run(read_results(studied)).id
    shown = run(place, "show", "grid")
    assert f"chosen on validation: {chosen}" in shown.stdout
    texts = ["a b c a", "h i j j k", "p q r s", "a"]
    jsonl = run(place, "predict", "grid", *texts, "--format", "jsonl")
    assert f"using {chosen}, the run chosen on validation" in jsonl.stderr
    rows = [json.loads(line) for line in jsonl.stdout.splitlines()]
    assert [row["text"] for row in rows] == texts
    assert [row["label"] for row in rows[:3]] == list(LABELS)
    assert all(
        sum(row["probabilities"].values()) == pytest.approx(1) and list(row["probabilities"]) == list(LABELS)
        for row in rows
    )
    named = run(place, "predict", f"grid/adapters/{chosen}", *texts, "--format", "jsonl")
    assert named.stdout == jsonl.stdout
    other = next(p.name for p in (studied / "adapters").iterdir() if p.name != chosen)
    assert run(place, "predict", "grid", *texts, "--format", "jsonl", "--run", other).stdout != jsonl.stdout


def test_predict_reads_files_and_standard_input_in_order(studied: Path, place: Path) -> None:
    texts = ["p q", "a b c d a b c d", "", "h i, j", "x"]
    (place / "texts.txt").write_text("\n".join(texts) + "\n")
    with (place / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "sentence"], *([i, t] for i, t in enumerate(texts))])
    from_file = run(place, "predict", "grid", "--file", "texts.txt", "--format", "csv")
    rows = list(csv.DictReader(from_file.stdout.splitlines()))
    assert [row["text"] for row in rows] == texts
    assert list(rows[0]) == ["text", "label", *(f"probability_{label}" for label in LABELS)]
    tabled = run(place, "predict", "grid", "--file", "table.csv", "--format", "csv")
    given = list(csv.DictReader(tabled.stdout.splitlines()))
    assert [row.pop("id") for row in given] == ["0", "1", "2", "3", "4"]
    assert [{"text": row.pop("sentence"), **row} for row in given] == rows
    assert run(place, "predict", "grid", "--format", "csv", stdin="\n".join(texts) + "\n").stdout == from_file.stdout
    alone = run(place, "predict", "grid", texts[1], "--format", "jsonl").stdout
    assert max(json.loads(alone)["probabilities"].values()) == pytest.approx(
        max(float(v) for k, v in rows[1].items() if "prob" in k), abs=1e-5
    )
    table = run(place, "predict", "grid", "a b", "[red]c")
    assert "apple" in table.stdout
    assert "[red]c" in table.stdout


def test_a_run_can_be_repeated_from_its_config(place: Path) -> None:
    first = run(
        place, "train", "data", "--model", "model", "--rank", "4", "--alpha", "8", "--dropout", "0.1", "--lr", "1e-2",
        "--steps", "30", "--batch-size", "16", "--eval-every", "10", "--seed", "3", "--out", "first",
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    again = run(place, "train", "--config", "first/config.toml", "--out", "again")
    assert again.returncode == 0, again.stderr
    other = run(place, "train", "--config", "first/config.toml", "--out", "other", "--seed", "4", "--quiet")
    assert other.stderr == ""

    def measured(folder: str) -> list[object]:
        results = json.loads((place / folder / "results.json").read_text())
        return [(r["id"], r["test"], r["validation"]) for r in results["runs"]]

    assert measured("first") == measured("again")
    assert measured("first") != measured("other")


def test_evaluate_on_data_and_again_on_the_test_split(place: Path) -> None:
    done = run(
        place,
        "train",
        "data",
        "--model",
        "model",
        "--rank",
        "4",
        "--lr",
        "1e-2",
        "--steps",
        "30",
        "--batch-size",
        "16",
        "--hybrid",
        "off",
        "--out",
        "judged",
    )
    assert done.returncode == 0, done.stderr
    recorded = json.loads((place / "judged" / "results.json").read_text())
    on_file = json.loads(run(place, "evaluate", "judged", "data/test.csv", "--format", "json").stdout)
    on_folder = json.loads(run(place, "evaluate", "judged", "data", "--format", "json").stdout)
    assert on_file == on_folder
    assert on_file["rows"] == 90
    # trained in bf16 if the CPU supports it, evaluated in fp32
    assert on_file["accuracy"] == pytest.approx(recorded["runs"][-1]["test"]["accuracy"], abs=0.05)
    assert json.loads(run(place, "evaluate", "judged", "data/train.csv", "--format", "json").stdout) != on_file
    assert recorded["test_reads"] == 1
    assert "accuracy" in run(place, "evaluate", "judged").stdout
    recorded = json.loads((place / "judged" / "results.json").read_text())
    assert recorded["test_reads"] == 4, "training, test.csv, its folder, and the run's own test split"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["train", "data", "--model", "model", "--rank", "-1", "--alpha", "0", "--targets", "quary"],
            ["3 problems", "rank is -1", "alpha is 0", "quary"],
        ),
        (["train", "nowhere.csv", "--model", "model"], ["nowhere.csv", "no such file"]),
        (["train", "data", "--model", "./nowhere"], ["./nowhere", "no such folder"]),
        (["predict", "nowhere", "text"], ["nowhere", "no such folder"]),
        (["predict", "data", "text"], ["data", "not a run folder"]),
        (["predict", "grid", "text", "--run", "loar-r2"], ["loar-r2", "it has: ", "lora-r2"]),
        (["predict", "grid", "text", "--file", "x.txt"], ["texts and --file are both given"]),
        (["train", "data", "--model", "model", "--out", "grid"], ["grid exists and is not empty", "--out"]),
        (["evaluate", "grid", "labels.csv"], ["labels.csv", "line 3", "dog"]),
        (["train", "data", "--model", "model", "--out", "labels.csv/run"],
         ["labels.csv/run cannot be created", "labels.csv is a file"]),
        (["export", "grid", "--out", "labels.csv/run"], ["labels.csv"]),
        (["predict", "bare", "text"],
         ["bare/results.json", "cannot be read", "data is missing", "runs is not a list", "test_reads is missing"]),
        (["report", "bare"], ["bare/results.json", "cannot be read"]),
    ],
)  # fmt: skip
def test_a_user_error_is_one_message_and_status_2(
    studied: Path, place: Path, arguments: list[str], words: list[str]
) -> None:
    (place / "labels.csv").write_text("text,label\na b,apple\nc,dog\n")
    (place / "bare").mkdir(exist_ok=True)
    (place / "bare" / "results.json").write_text('{"schema": 1, "kind": "train"}')
    done = run(place, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    assert not (place / "runs").exists()  # no folder is left after an error


def test_a_run_without_a_description_is_reported(studied: Path, place: Path) -> None:
    copy = place / "torn"
    shutil.copytree(studied, copy)
    id = chosen_run(read_results(copy)).id
    (copy / "adapters" / id / "loralet.json").unlink()
    done = run(place, "predict", "torn", "text")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"torn/adapters/{id}: loralet.json is missing" in done.stderr


def test_a_byte_order_mark_is_not_part_of_the_first_text(studied: Path, place: Path) -> None:
    (place / "marked.txt").write_bytes("\ufeffa b\nc d\n".encode())
    done = run(place, "predict", "grid", "--file", "marked.txt", "--format", "jsonl")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["a b", "c d"]


def test_an_unknown_flag_gives_status_2(place: Path) -> None:
    done = run(place, "train", "data", "--modle", "model")
    assert done.returncode == 2
    assert "modle" in done.stderr + done.stdout


def test_training_with_only_diverged_runs_gives_status_1(place: Path) -> None:
    done = run(
        place,
        "train",
        "data",
        "--model",
        "model",
        "--rank",
        "4",
        "--alpha",
        "1e30",
        "--lr",
        "1e20",
        "--steps",
        "20",
        "--out",
        "wild",
    )
    assert done.returncode == 1
    assert "diverged" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupt_gives_status_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("loralet.commands.show.show", interrupt)
    assert main(["show", "x"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("the native backend ran out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
    ids=["kernel", "python", "torch", "gpu"],
)
@pytest.mark.parametrize("computing", [True, False], ids=["computing", "elsewhere"])
def test_too_little_memory_is_reported_with_a_remedy(
    error: Exception, computing: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: object) -> None:
        with memory_errors() if computing else nullcontext():
            raise error

    monkeypatch.setattr("loralet.commands.show.show", fail)
    assert main(["show", "x"]) == 1
    said = capsys.readouterr().err
    assert "loralet: not enough memory; use a smaller --batch-size" in said
    assert str(error) in said
    assert "Traceback" not in said


def test_other_runtime_errors_are_not_mistaken_for_too_little_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors():
        raise RuntimeError("shapes do not match")


def test_the_installed_command_is_this_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loralet", "show", "nowhere"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "nowhere: not a run folder" in done.stderr


def test_help_does_not_import_torch_and_lists_every_command(place: Path) -> None:
    code = (
        "import sys\nfrom loralet.cli import main\ntry: main(['--help'])\n"
        "finally: print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "False False"
    for name in COMMANDS:
        assert name in done.stdout
    assert run(place, "--version").stdout.startswith("loralet ")
