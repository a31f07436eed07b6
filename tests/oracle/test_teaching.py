"""A taught run: its loss against torch, its targets, and the command from teachers to the student."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command_line import Done, command, options
from models import make_pair
from test_hybrid import rows, write

from loralet.artifacts.folder import load_artifact
from loralet.config import ComputeOptions, ModelOptions, TeachConfig
from loralet.inference.ensemble import load_ensemble
from loralet.interrupts import Interrupted
from loralet.runs.results import read_results
from loralet.studies.teaching import mix_texts
from loralet.tasks.single_label import SingleLabel
from loralet.tasks.teaching import NO_LABEL, Taught, taught, taught_targets
from loralet.training import loop

LABELS = ("a", "b", "c", "d")
FLAGS = (
    "--model", "model", "--steps", "40", "--batch-size", "16", "--eval-every", "20", "--precision", "fp32",
    "--rank", "4", "--alpha", "8", "--lr", "1e-2", "--head", "mean", "--hybrid", "off", "--quiet",
)  # fmt: skip
RUN = "lora-r4-a8-lr0.01-s0"


def distilled(logits: torch.Tensor, wanted: torch.Tensor, label: int | None, t: float, w: float) -> torch.Tensor:
    """The loss of one row, written with torch's functions."""
    soft = t**2 * F.kl_div((logits / t).log_softmax(-1), wanted, reduction="sum")
    if label is None:
        return soft
    return w * soft + (1 - w) * F.cross_entropy(logits[None], torch.tensor([label]))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_and_its_gradient_are_those_of_torch(temperature: float, weight: float) -> None:
    torch.manual_seed(0)
    logits = (4 * torch.randn(3, 5, 4, dtype=torch.float64)).requires_grad_()
    task = taught(SingleLabel(LABELS), temperature, weight)
    known = np.array([2, 0, 3])  # the last two rows have no label
    targets = torch.from_numpy(taught_targets(task, 3 * np.random.default_rng(1).normal(size=(5, 4)), known))
    losses, gradient = task.row_losses(logits.detach(), targets)
    wanted = torch.stack(
        [
            torch.stack(
                [
                    distilled(
                        logits[k, i],
                        targets[i, :-1].double(),
                        int(known[i]) if i < len(known) else None,
                        temperature,
                        weight,
                    )
                    for i in range(5)
                ]
            )
            for k in range(3)
        ]
    )
    torch.testing.assert_close(losses, wanted.detach(), atol=1e-6, rtol=1e-6)
    (own,) = torch.autograd.grad(wanted.sum(), logits)
    torch.testing.assert_close(gradient, own, atol=1e-6, rtol=1e-6)


def test_a_certain_teacher_has_a_finite_loss() -> None:
    task = taught(SingleLabel(LABELS), 1.0, 1.0)
    targets = torch.from_numpy(taught_targets(task, np.array([[0.0, 1000.0, 0.0, 0.0]]), np.array([1])))
    losses, gradient = task.row_losses(torch.zeros(1, 1, 4), targets)
    assert losses.item() == pytest.approx(np.log(4))
    assert gradient.flatten().tolist() == pytest.approx([0.25, -0.75, 0.25, 0.25])


def test_targets_are_probabilities_at_a_temperature_and_labels() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 4)) * 5
    found = taught_targets(taught(SingleLabel(LABELS), 2.5, 0.5), logits + 7, np.array([3, 1]))
    assert found[:, -1].tolist() == [3, 1, NO_LABEL]
    np.testing.assert_allclose(found[:, :-1], torch.from_numpy(logits / 2.5).softmax(-1).numpy(), atol=1e-6)


def test_a_taught_task_scores_as_the_task_does() -> None:
    task = SingleLabel(LABELS, ("1", "2", "3", "4"), "int")
    own = taught(task, 2.0, 0.5)
    logits, targets = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 4
    assert own.score(logits, targets) == task.score(logits, targets)
    assert (own.labels, own.values, own.label_type, own.name) == (task.labels, task.values, "int", task.name)


def test_a_mixture_is_the_start_of_a_text_and_the_end_of_another() -> None:
    texts = [" ".join(f"{letter}{i}" for i in range(6)) for letter in "abcdefgh"]
    mixed = mix_texts(texts, 3, 0)
    assert len(mixed) == 24
    for i, text in enumerate(mixed):
        words = text.split()
        start = [word for word in words if word.startswith(texts[i % 8][0])]
        assert words[0] == texts[i % 8].split()[0]
        end = words[len(start) :]
        assert len({word[0] for word in end}) <= 1
        assert not end or end[-1].endswith("5")
    assert len(set(mixed)) > 20
    assert mix_texts(texts, 3, 0) == mixed != mix_texts(texts, 3, 1)
    assert mix_texts(["", "a"], 1, 0), "a text without words"


@dataclass(frozen=True)
class Place:
    """A folder with a model, data, texts without labels, and a run that was taught by the model itself."""

    folder: Path
    done: Done


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("teaching")
    make_pair(folder / "model")
    write(folder / "data" / "train.csv", *rows(90, 0, accents=False))
    write(folder / "data" / "validation.csv", *rows(60, 1, accents=False))
    write(folder / "data" / "test.csv", *rows(60, 2, accents=False))
    (folder / "more.txt").write_text("\n".join(rows(100, 3, accents=False)[0]), encoding="utf-8")
    done = command(folder, *ARGUMENTS, "--out", "taught")
    assert done.returncode == 0, done.stderr
    return Place(folder, done)


ARGUMENTS = ("teach", "data", "--teacher", "model", "--unlabelled", "more.txt", *FLAGS)


def test_the_student_is_a_run_with_its_teachers_beside_it(place: Place) -> None:
    run = place.folder / "taught"
    results = read_results(run)
    assert (results.kind, results.data.train_rows, results.finished) == ("teach", 90, True)
    assert RUN in place.done.stdout
    assert read_results(run / "teachers" / "1-model").kind == "train"
    made = load_artifact(run / "adapters" / RUN).provenance
    assert made.teachers == ("lora-r16-a32-lr0.0005-s0 on model",)
    assert made.unlabelled_rows == len(set(rows(100, 3, accents=False)[0])), "texts that repeat are read once"
    card = (run / "adapters" / RUN / "README.md").read_text(encoding="utf-8")
    assert "| teachers | lora-r16-a32-lr0.0005-s0 on model |" in card
    for name in ("show", "report"):
        done = command(place.folder, name, "taught")
        assert done.returncode == 0, done.stderr
    predicted = command(place.folder, "predict", "taught", "a u v", "--format", "jsonl")
    assert json.loads(predicted.stdout)["label"] in ("apple", "bird", "cat")


def test_the_student_has_learnt_from_the_probabilities_of_its_teachers(place: Place) -> None:
    """With weight 1 for the teacher, labels have no part, so wrong labels do not matter."""
    texts, labels = rows(90, 0, accents=False)
    turned = [{"apple": "bird", "bird": "cat", "cat": "apple"}[label] for label in labels]
    write(place.folder / "wrong" / "train.csv", texts, turned)
    for name in ("validation", "test"):
        (place.folder / "wrong" / f"{name}.csv").write_bytes((place.folder / "data" / f"{name}.csv").read_bytes())
    arguments = ("--teacher", "taught", "--soft-weight", "1", "--mixtures", "0", *FLAGS)
    done = command(place.folder, "teach", "wrong", *arguments, "--steps", "150", "--out", "from-teacher")
    assert done.returncode == 0, done.stderr
    run = next(run for run in read_results(place.folder / "from-teacher").runs if run.id == RUN)
    teacher = next(run for run in read_results(place.folder / "taught").runs if run.id == RUN)
    assert run.test is not None
    assert teacher.test is not None
    assert run.test["accuracy"] > 0.8 * teacher.test["accuracy"] > 0.4


def test_the_order_of_the_teachers_labels_does_not_matter(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(place.folder)
    names = ("--label-names", "cat", "bird", "apple")
    arguments = ("--teacher", "taught", "--soft-weight", "1", *FLAGS, *names, "--steps", "150")
    done = command(place.folder, "teach", "data", *arguments, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    texts = rows(60, 2, accents=False)[0]
    found = load_ensemble([tmp_path / "run" / "adapters" / RUN], ModelOptions(), ComputeOptions("fp32"))
    teacher = load_ensemble([Path("taught/adapters") / RUN], ModelOptions(), ComputeOptions("fp32"))
    own, other = ([p.label for p in one.predict(texts)] for one in (found, teacher))
    assert np.mean([a == b for a, b in zip(own, other, strict=True)]) > 0.75


def test_teachers_are_not_trained_twice(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("loralet.commands.teach.plan_teach", interrupted)
        assert command(place.folder, *ARGUMENTS, "--out", out).returncode == 130
    trained = (tmp_path / "run" / "teachers" / "1-model" / "results.json").stat()
    changed = command(place.folder, *ARGUMENTS, "--out", out, "--seed", "1")
    assert changed.returncode == 2
    assert "seed is 1, it was 0" in changed.stderr
    done = command(place.folder, *ARGUMENTS, "--out", out)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "teachers" / "1-model" / "results.json").stat().st_mtime_ns == trained.st_mtime_ns
    assert weights(tmp_path / "run") == weights(place.folder / "taught")


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def weights(run: Path) -> bytes:
    return (run / "adapters" / RUN / "adapter_model.safetensors").read_bytes()


def test_an_interrupted_student_is_resumed_bit_for_bit(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    real = loop.take_step
    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", lambda state, *others: stop_in_student(state, real, *others))
        done = command(place.folder, *ARGUMENTS, "--out", out, "--checkpoint-every", "0")
    assert done.returncode == 130, done.stderr
    assert f"loralet resume {out}" in done.stderr
    more = place.folder / "more.txt"
    before = more.read_bytes()
    more.write_bytes(before + b"\nanother text")
    refused = command(place.folder, "resume", out)
    more.write_bytes(before)
    assert refused.returncode == 2
    assert "more.txt: changed since the run" in refused.stderr
    done = command(place.folder, "resume", out)
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "run") == weights(place.folder / "taught")


def stop_in_student(state: loop.TrainingState, real: object, *others: object) -> list[float]:
    if isinstance(state.task, Taught) and state.step == 25:
        raise Interrupted(2)
    assert callable(real)
    found: list[float] = real(state, *others)
    return found


def test_other_labels_and_missing_teachers_are_refused(place: Place, tmp_path: Path) -> None:
    texts, labels = rows(30, 0, accents=False)
    write(tmp_path / "data" / "train.csv", texts, [f"{label}s" for label in labels])
    arguments = ("teach", str(tmp_path / "data"), "--teacher", str(place.folder / "taught"), *FLAGS)
    done = command(place.folder, *arguments, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "the teachers' labels are apple, bird, cat, those of the data apples, birds, cats" in done.stderr
    assert not (tmp_path / "out").exists()
    done = command(place.folder, "teach", "data", *FLAGS, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "teacher is empty" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--folds", "3"), "teachers know the labels of every fold"),
        (("--mixtures", "-1"), "mixtures is -1"),
        (("--soft-weight", "1.5"), "soft_weight is 1.5"),
        (("--temperature", "0"), "temperature is 0.0"),
        (("--temperature", "inf"), "temperature is inf"),
    ],
)
def test_options_out_of_range_are_refused(arguments: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        options("teach", "data", "--teacher", "x", *arguments)


def test_the_student_has_its_own_defaults() -> None:
    found = options("teach", "data", "--teacher", "x")
    assert isinstance(found, TeachConfig)
    assert (found.training.head, found.training.epochs, found.number_of_folds) == ("mean", 8.0, 0)
