"""With few training rows, options of a single run that are not set have other values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import command
from models import make_pair
from safetensors.numpy import load_file

from loralet import TextClassifier
from loralet.adapters.spec import TARGETS
from loralet.config import GridOptions, StudyConfig, TeachConfig, TrainConfig, TrainingOptions
from loralet.report.analysis import analyse
from loralet.report.run_tests import tied_runs
from loralet.report.summary import facts
from loralet.runs.results import read_results
from loralet.runs.run import Run
from loralet.runs.selection import chosen_run
from loralet.studies.plan import FEW_ROWS, WIDE, plan_study, plan_teach, plan_train
from loralet.studies.study import prepare

FEW = FEW_ROWS - 1


def train(lr: float | None = None, **options: object) -> TrainConfig:
    return TrainConfig(lr=lr, training=TrainingOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "rows", "lr", "steps"),
    [
        (train(), FEW, 5e-4, 200),
        (train(), FEW_ROWS, 3e-3, None),
        (train(lr=3e-3), FEW, 3e-3, None),
        (train(steps=60), FEW, 5e-4, 60),
        (train(epochs=2.0), FEW, 5e-4, None),
    ],
)
def test_the_recipe_depends_on_the_rows_unless_it_is_set(
    config: TrainConfig, rows: int, lr: float, steps: int | None
) -> None:
    plan = plan_train(config).settled(rows)
    (run,) = plan.runs
    assert (run.lr, plan.training.steps) == (lr, steps)
    assert f"-lr{lr:g}-" in run.id
    assert bool(plan.notes) == (lr == 5e-4)
    assert any("200 steps" in note for note in plan.notes) == (steps == 200)


@pytest.mark.parametrize(
    ("config", "width", "lr"),
    [
        (train(), WIDE - 1, 3e-3),
        (train(), WIDE, 1e-3),
        (train(lr=3e-3), 768, 3e-3),
        (TeachConfig(model="model", teacher=("other",)), 384, 1e-3),
    ],
)
def test_the_learning_rate_depends_on_the_width_unless_it_is_set(config: TrainConfig, width: int, lr: float) -> None:
    plan = plan_teach(config, []) if isinstance(config, TeachConfig) else plan_train(config)
    (run,) = plan.settled(FEW_ROWS).suited({plan.runs[0].model: width}).runs
    assert run.lr == lr
    assert f"-lr{lr:g}-" in run.id


def test_few_rows_come_before_the_width() -> None:
    plan = plan_train(train()).settled(FEW)
    assert plan.suited({plan.runs[0].model: 768}).runs[0].lr == 5e-4


def test_the_default_configuration_of_a_study_depends_on_the_width() -> None:
    config = StudyConfig(grid=GridOptions(models=("tiny-en", "small-en"), lrs=(3e-3,)))
    plan = plan_study(config).suited({"tiny-en": 128, "small-en": 384})
    assert {(run.model, run.lr) for run in plan.runs if run.default} == {("tiny-en", 3e-3), ("small-en", 1e-3)}
    assert {run.lr for run in plan.runs if run.role == "lora" and not run.default} == {3e-3}


def test_a_study_has_the_options_of_its_grid() -> None:
    plan = plan_study(StudyConfig())
    few = plan.settled(FEW)
    assert [run for run in few.runs if not run.default] == [run for run in plan.runs if not run.default]
    assert [run.lr for run in few.runs if run.default] == [5e-4]
    assert (few.training, plan.notes) == (plan.training, [])
    (note,) = few.notes
    assert "the default configuration has a learning rate of 0.0005" in note
    assert "200 steps" in note
    assert plan.settled(500).notes == []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    make_pair(folder / "model")
    rows = [f"{'a b c' if i % 2 else 'x y z'} w{i % 90},{'first' if i % 2 else 'second'}" for i in range(60)]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return folder


def test_the_choice_is_said_and_recorded(place: Path) -> None:
    done = command(place, "train", "rows.csv", "--model", "model", "--rank", "2", "--folds", "0", "--out", "run")
    assert done.returncode == 0, done.stderr
    said = "fewer than 500 training rows: a learning rate of 0.0005 and 200 steps (set --lr to change)"
    assert said in " ".join((done.stdout + done.stderr).split())
    (run,) = [run for run in read_results(place / "run").runs if run.role == "lora"]
    assert (run.learning_rate, run.steps) == (5e-4, 200)
    assert dict(facts(analyse(place / "run")))["Training"].startswith("200 steps of 32 rows (119 epochs), linear")


def test_the_estimator_has_the_same_recipe(place: Path) -> None:
    lines = (place / "rows.csv").read_text().splitlines()[1:]
    texts, labels = zip(*(line.split(",") for line in lines), strict=True)
    heard: list[object] = []
    fitted = TextClassifier(str(place / "model"), rank=2, listen=heard.append).fit(list(texts), list(labels))
    made = fitted.artifact_.provenance
    assert made.training is not None
    assert (made.lr, made.training.steps, made.steps_taken) == (5e-4, 200, 200)
    assert any("a learning rate of 0.0005" in str(event) for event in heard)


def prepared_runs(place: Path, **grid: object) -> list[Run]:
    """The runs of a study after its data is read."""
    given: dict[str, object] = {"models": (str(place / "model"),), "ranks": (16,), "alphas": (32.0,), "lrs": (5e-4,)}
    config = StudyConfig(str(place / "rows.csv"), grid=GridOptions(**(given | grid)))  # type: ignore[arg-type]
    prepared = prepare(plan_study(config), lambda event: None)
    assert sorted(id(run) for pack in prepared.packs.packs for run in pack) == sorted(map(id, prepared.plan.runs))
    return list(prepared.plan.runs)


def test_a_study_trains_the_default_configuration_once(place: Path) -> None:
    train = plan_train(TrainConfig()).settled(FEW).runs[0]
    made = {run.id: run for run in prepared_runs(place, targets=("query", "value"), seeds=(0, 1))}
    assert [name for name, run in made.items() if run.default] == ["default-s0", "default-s1"]
    own = made["default-s0"]
    assert (own.adapter, own.lr, own.lr_ratio) == (train.adapter.on(TARGETS), train.lr, train.lr_ratio)
    for targets in (("all-linear",), TARGETS[::-1]):
        (probe, one) = prepared_runs(place, targets=targets)
        assert (probe.role, probe.default, one.id, one.default) == (
            "linear-probe", False, "lora-r16-a32-lr0.0005-s0", True,
        )  # fmt: skip
    other = prepared_runs(place, targets=("all-linear",), lrs=(5e-4, 1e-3), dropouts=(0.0, 0.1))
    assert [run.id for run in other if run.default] == ["lora-r16-a32-lr0.0005-d0-s0"]
    assert not any(run.default for run in prepared_runs(place, default=False))


def test_the_results_of_a_study_name_its_default_configuration(place: Path) -> None:
    given = ("--models", "model", "--ranks", "2", "--alphas", "4", "--steps", "4", "--hybrid", "off", "--out", "study")
    done = command(place, "study", "rows.csv", *given)
    assert done.returncode == 0, done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert "the default configuration has a learning rate of 0.0005; `loralet train` takes 200 steps" in said
    assert "default-s0: the default of loralet train (rank 16, alpha 32, learning rate 0.0005" in said
    assert [run.id for run in read_results(place / "study").runs if run.default] == ["default-s0"]
    assert "default r16 α32" in {row.name for row in analyse(place / "study").configurations}
    results = read_results(place / "study")
    tensors = load_file(place / "study" / "validation.safetensors")
    labels = tensors.pop("labels")
    chosen = chosen_run(results).id
    probabilities = tensors.pop(chosen)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    tensors[f"predicted/{chosen}"] = probabilities.argmax(1)
    assert {f"predicted/{run.id}" for run in results.runs if run.role != "random-head"} == set(tensors)
    for name, predicted in tensors.items():
        validation = results.run(name.removeprefix("predicted/")).validation
        assert validation is not None
        assert (predicted == labels).mean() == pytest.approx(validation["accuracy"]), name
    tied = tied_runs(place / "study", results)
    assert tied <= {run.id for run in results.runs} - {chosen_run(results).id}
    assert tied, "six rows distinguish nothing"
