"""Options: limits, TOML round trip, documentation, and that every option is read."""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
import random
import re
import typing
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import loralet
from loralet import config as module
from loralet.adapters.spec import ALL_LINEAR, TARGETS, TARGETS_HELP, resolve_targets
from loralet.cli import COMMANDS, parse
from loralet.config import (
    AdapterSpec,
    CheckConfig,
    ColumnOptions,
    ComputeOptions,
    DataOptions,
    EvaluateConfig,
    GridOptions,
    LabelledRows,
    OneRun,
    PredictConfig,
    SeveralRuns,
    StudyConfig,
    TeachConfig,
    TrainConfig,
    TrainingOptions,
)
from loralet.config.limits import MOST_EPOCHS, MOST_GIB
from loralet.config.toml import options_text, read_options
from loralet.errors import ConfigError
from loralet.runtime import MOST_THREADS

SOURCES = Path(loralet.__file__).parent
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "options",
    [
        ColumnOptions(),
        DataOptions(),
        TrainingOptions(),
        AdapterSpec(),
        ComputeOptions(),
        GridOptions(),
        TrainConfig(),
        TeachConfig(teacher=("x",)),
        StudyConfig(),
    ],
)
def test_defaults_are_valid(options: Any) -> None:
    assert list(options.problems()) == []


INVALID_VALUES: list[tuple[type, str, list[Any], list[Any]]] = [
    (DataOptions, "validation_fraction", [0.0, 1.0, -0.1, NAN], [1e-9, 0.99]),
    (DataOptions, "split_seed", [-1], [0, 2**40]),
    (DataOptions, "max_length", [2, 0, -1], [3]),
    (ColumnOptions, "columns", [("text", "label", "text")], [(), ("text", "label")]),
    (DataOptions, "label_names", [("a", "a")], [("a", "b")]),
    (StudyConfig, "memory", [0.0, -1.0, NAN, INF], [0.1, None]),
    (TrainingOptions, "head_dropout", [-0.1, 1.0, NAN], [0.0, 0.99]),
    (TrainingOptions, "epochs", [0.0, -1.0, NAN, INF], [0.01]),
    (TrainingOptions, "steps", [0, -1], [1, None]),
    (TrainingOptions, "batch_size", [0, -1], [1]),
    (TrainingOptions, "warmup", [-0.1, 1.0, NAN], [0.0, 0.99]),
    (TrainingOptions, "weight_decay", [-0.1, NAN, INF], [0.0, 3.0]),
    (TrainingOptions, "clip", [-0.1, NAN, INF], [0.0, 3.0]),
    (TrainingOptions, "eval_every", [0], [1]),
    (TrainingOptions, "validation_sample", [0], [1]),
    (TrainingOptions, "target_score", [0.0, 1.01, NAN], [0.01, 1.0]),
    (TrainingOptions, "patience", [0], [1, None]),
    (TrainingOptions, "class_weight", [""], ["none", "balanced", "weights.json"]),
    (TrainingOptions, "select_by", ["f1", "macro_f1", ""], ["accuracy", "macro-f1", "loss"]),
    (TrainingOptions, "hybrid", ["maybe", ""], ["auto", "on", "off"]),
    (TrainingOptions, "head", ["max"], ["auto", "pooler", "trained-pooler", "mean"]),
    (TrainingOptions, "schedule", ["cubic"], ["linear", "cosine", "constant"]),
    (ComputeOptions, "threads", [0, -1, MOST_THREADS + 1, 100_000], [1, MOST_THREADS, None]),
    (ComputeOptions, "backend", ["gpu", ""], ["auto", "native", "torch"]),
    (ComputeOptions, "precision", ["fp16", "float32"], ["auto", "fp32", "bf16"]),
    (AdapterSpec, "method", [], ["lora", "dora"]),
    (AdapterSpec, "scaling", [], ["alpha/r", "rslora"]),
    (AdapterSpec, "rank", [-1], [0, 1]),
    (AdapterSpec, "alpha", [0.0, -1.0, NAN, INF], [0.01]),
    (AdapterSpec, "dropout", [-0.1, 1.0, NAN], [0.0, 0.99]),
    (AdapterSpec, "targets", [(), ("quary",), (ALL_LINEAR, "query")], [("query",), (ALL_LINEAR,), TARGETS]),
    (GridOptions, "models", [(), ("a", "b", "a")], [("a", "b")]),
    (GridOptions, "methods", [(), ("lora", "lora")], [("lora", "dora")]),
    (GridOptions, "ranks", [(), (4, 4)], [(0, 4)]),
    (GridOptions, "alphas", [(), (1.0, 1.0)], [(1.0, 2.0)]),
    (GridOptions, "lrs", [(), (1.0, 1.0)], [(1.0, 2.0)]),
    (GridOptions, "lr_ratios", [(), (1.0, 1.0), (1.0, 0.0), (-2.0,), (INF,), (NAN,)], [(0.5, 16.0)]),
    (GridOptions, "seeds", [(), (1, 1), (0, -1)], [(0, 1)]),
    (GridOptions, "dropouts", [(), (0.1, 0.1)], [(0.0, 0.1)]),
    (GridOptions, "scalings", [(), ("rslora", "rslora")], [("alpha/r", "rslora")]),
    (GridOptions, "target_sets", [("query+value", "value+query")], [(), ("query+value", "all-linear")]),
    (GridOptions, "targets", [(), ("quary",), (ALL_LINEAR, "query")], [("query",)]),
    (GridOptions, "full_lr", [0.0, NAN, INF], [1e-9]),
    (GridOptions, "probe_lr", [0.0, NAN, INF], [1e-9]),
    (StudyConfig, "checkpoint_every", [-1.0, NAN, INF], [0.0, 30.0]),
    (TrainConfig, "checkpoint_every", [-1.0, NAN, INF], [0.0, 30.0]),
    (TrainConfig, "seed", [-1], [0, 2**40]),
    (TrainConfig, "lr", [0.0, -1.0, NAN, INF], [1e-9]),
    (TrainConfig, "lr_ratio", [0.0, -1.0, NAN, INF], [1e-9, 16.0]),
    (CheckConfig, "folds", [1, 0, -1], [2, 10]),
    (CheckConfig, "out", [""], ["a.csv"]),
    (CheckConfig, "seed", [-1], [0, 2**40]),
    (TrainConfig, "folds", [1, -1], [None, 0, 2]),
]


@pytest.mark.parametrize(
    ("kind", "name", "value"), [(kind, name, value) for kind, name, wrong, _ in INVALID_VALUES for value in wrong]
)
def test_every_invalid_value_is_reported_by_name(kind: type, name: str, value: Any) -> None:
    problems = list(kind(**{name: value}).problems())
    assert len(problems) == 1
    assert problems[0].startswith(f"{name} ")
    assert ":" in problems[0]  # the value, then the limits


@pytest.mark.parametrize(
    ("kind", "name", "value"), [(kind, name, value) for kind, name, _, right in INVALID_VALUES for value in right]
)
def test_values_at_the_limit_are_accepted(kind: type, name: str, value: Any) -> None:
    assert list(kind(**{name: value}).problems()) == []


@pytest.mark.parametrize(("name", "value"), [("method", "loha"), ("scaling", "alpha")])
def test_an_unknown_choice_of_an_adapter_is_reported(name: str, value: str) -> None:
    spec = AdapterSpec()
    object.__setattr__(spec, name, value)  # the constructor would be rejected by the type checker of the tests
    (problem,) = spec.problems()
    assert problem.startswith(f"{name} is '{value}': it must be one of ")


ONE_RUN = OneRun("run")
NO_THREADS, NO_COLUMNS = ComputeOptions(threads=0), ColumnOptions(columns=("text", "text"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (EvaluateConfig(SeveralRuns(ONE_RUN), compute=NO_THREADS), "threads is 0:"),
        (
            EvaluateConfig(SeveralRuns(ONE_RUN), LabelledRows(columns=NO_COLUMNS)),
            "columns contains duplicates: text, text",
        ),
        (EvaluateConfig(SeveralRuns(OneRun("run", "a"), ("b",))), "run and runs are both given"),
        (PredictConfig(SeveralRuns(ONE_RUN), compute=NO_THREADS), "threads is 0:"),
        (PredictConfig(SeveralRuns(OneRun("run", "a"), ("b",))), "run and runs are both given"),
        (module.ExportConfig(ONE_RUN, compute=NO_THREADS), "threads is 0:"),
        (module.ExportConfig(ONE_RUN, columns=NO_COLUMNS), "columns contains duplicates"),
        (module.ExportConfig(ONE_RUN, int8=True), "int8 needs --to onnx, not --to safetensors-bundle"),
        (module.ExportConfig(ONE_RUN, dry_run=True), "dry_run needs --push"),
        (module.AverageConfig(("a", "b"), compute=NO_THREADS), "threads is 0:"),
        (module.AverageConfig(), "no runs given"),
        (
            module.AverageConfig(("a", "b"), runs=("c", "d")),
            "runs needs exactly one study folder, but 2 folders are given",
        ),
        (module.AverageConfig(("a",), runs=("c",)), "runs has one id"),
        (module.InspectConfig(), "paths is empty"),
        (module.DistillConfig("t", ("x",), out="o", compute=NO_THREADS), "threads is 0:"),
        (module.DistillConfig("t", ("x",), out="o", checkpoint_every=-1.0), "checkpoint_every is -1.0:"),
        (TrainConfig(compute=NO_THREADS), "threads is 0:"),
        (StudyConfig(compute=NO_THREADS), "threads is 0:"),
        (TrainConfig(folds=2, stop_at_target=True), "folds cannot be combined with patience or stop_at_target"),
        (TrainConfig(folds=2, training=TrainingOptions(patience=1)), "folds cannot be combined with patience"),
        (TrainConfig(reading=DataOptions(columns=NO_COLUMNS)), "columns contains duplicates"),
    ],
)
def test_a_command_reports_the_problems_of_its_parts_once(options: Any, words: str) -> None:
    (problem,) = options.problems()
    assert problem.startswith(words)


def test_valid_options_of_commands_are_accepted() -> None:
    one, several = ONE_RUN, SeveralRuns(ONE_RUN)
    valid: list[Any] = [EvaluateConfig(several), PredictConfig(several), module.ExportConfig(one, to="onnx", int8=True)]
    valid += [module.AverageConfig(("a", "b")), module.AverageConfig(("a",), ("b", "c")), module.InspectConfig(("a",))]
    valid += [module.ExportConfig(one, push="a/b", dry_run=True), module.DistillConfig("t", ("x",), out="o")]
    assert [list(options.problems()) for options in valid] == [[]] * len(valid)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (GridOptions(ranks=(4, -1)), "rank is -1"),
        (GridOptions(alphas=(1.0, 0.0)), "alpha is 0.0"),
        (GridOptions(lrs=(1.0, -2.0)), "lrs is -2.0"),
        (GridOptions(dropouts=(0.0, 1.0)), "dropout is 1.0"),
        (GridOptions(target_sets=("query+value", "query+quary")), "targets has quary"),
        (GridOptions(target_sets=("all-linear+value",)), "targets mixes all-linear"),
        (
            GridOptions(targets=("query", "quary", "kee")),
            "targets has quary, kee: the linear layers are query, key, value",
        ),
    ],
)
def test_one_invalid_value_of_a_grid_is_the_only_problem_reported(options: GridOptions, words: str) -> None:
    (problem,) = options.problems()
    assert words in problem


def test_all_problems_of_all_parts_are_reported() -> None:
    config = TrainConfig(
        seed=-1,
        lr=0.0,
        adapter=AdapterSpec(rank=-1, alpha=0.0),
        training=TrainingOptions(batch_size=0),
        reading=DataOptions(max_length=1),
        compute=ComputeOptions(threads=0),
    )
    reported = [problem.split()[0] for problem in config.problems()]
    assert reported == ["seed", "lr", "rank", "alpha", "batch_size", "max_length", "threads"]
    study = StudyConfig(
        grid=GridOptions(ranks=()), training=TrainingOptions(epochs=0.0), reading=DataOptions(split_seed=-1)
    )
    assert [problem.split()[0] for problem in study.problems()] == ["ranks", "epochs", "split_seed"]
    message = str(ConfigError.listing(study.problems(), "study.toml"))
    assert message.splitlines()[0] == "3 problems in the options (study.toml):"
    assert len(message.splitlines()) == 4
    assert str(ConfigError.listing(["x"])).startswith("1 problem in the options:\n")


text = st.text(st.characters(codec="utf-8"), max_size=8)
share = st.floats(0.001, 0.999)
above_0 = st.floats(1e-12, 1e12)
at_least_0 = st.just(0.0) | above_0
count = st.integers(1, 2**40)
seed = st.integers(0, 2**62)
method = st.sampled_from(["lora", "dora"])
scaling = st.sampled_from(["alpha/r", "rslora"])
targets = st.just((ALL_LINEAR,)) | st.lists(st.sampled_from(TARGETS), min_size=1, max_size=3).map(tuple)


def several(values: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, min_size=least, max_size=3, unique=True).map(tuple)


def adapter_spec(**options: Any) -> AdapterSpec:
    """Restore the random state: the type checker of the tests draws from it, which hypothesis does not allow."""
    state = random.getstate()
    try:
        return AdapterSpec(**options)
    finally:
        random.setstate(state)


columns = st.builds(
    ColumnOptions, text_column=text, label_column=text, columns=several(text),
    separator=st.sampled_from(["", ";", "tab"]), quoting=st.sampled_from(["auto", "standard", "none"]),
)  # fmt: skip
reading = st.builds(
    DataOptions, columns=columns, label_names=several(text), validation_fraction=share, split_seed=seed,
    drop_overlap=st.booleans(), max_length=st.none() | st.integers(3, 512), strict=st.booleans(),
)  # fmt: skip
training = st.builds(
    TrainingOptions, head=st.sampled_from(["auto", "pooler", "trained-pooler", "mean"]), head_dropout=share,
    epochs=st.floats(1e-12, MOST_EPOCHS), steps=st.none() | count, batch_size=count,
    schedule=st.sampled_from(["linear", "cosine", "constant"]), warmup=share,
    select_by=st.sampled_from(["accuracy", "macro-f1", "loss"]),
    weight_decay=at_least_0, clip=at_least_0, eval_every=count, validation_sample=count, target_score=share,
    patience=st.none() | count, class_weight=st.sampled_from(["none", "balanced", "my weights.json"]),
    hybrid=st.sampled_from(["auto", "on", "off"]),
)  # fmt: skip
compute = st.builds(
    ComputeOptions, backend=st.sampled_from(["auto", "native", "torch"]),
    precision=st.sampled_from(["auto", "fp32", "bf16"]), threads=st.none() | st.integers(1, MOST_THREADS),
)  # fmt: skip
adapter = st.builds(
    adapter_spec, method=method, rank=st.integers(0, 512), alpha=above_0, dropout=share, targets=targets,
    scaling=scaling,
)  # fmt: skip
grid = st.builds(
    GridOptions, models=several(text, 1), methods=several(method, 1), ranks=several(st.integers(0, 512), 1),
    alphas=several(above_0, 1), lrs=several(above_0, 1), lr_ratios=several(above_0, 1), seeds=several(seed, 1),
    dropouts=several(share, 1), targets=targets, scalings=several(scaling, 1),
    target_sets=st.just(()) | st.just(("query+value", "all-linear")), full=st.booleans(), full_lr=above_0,
    probe_lr=above_0, default=st.booleans(),
)  # fmt: skip
train_config = st.builds(
    TrainConfig, data=text, model=text, out=text, seed=seed, lr=above_0, lr_ratio=above_0, adapter=adapter,
    training=training, reading=reading, compute=compute, stop_at_target=st.booleans(), folds=st.none() | st.just(0),
    checkpoint_every=at_least_0,
)  # fmt: skip
teach_config = st.builds(
    TeachConfig, data=text, model=text, out=text, seed=seed, lr=above_0, lr_ratio=above_0, adapter=adapter,
    training=training, reading=reading, compute=compute, stop_at_target=st.booleans(), folds=st.none() | st.just(0),
    checkpoint_every=at_least_0, teacher=several(text, 1), unlabelled=several(text), mixtures=st.integers(0, 5),
    soft_weight=st.floats(0, 1), temperature=above_0,
)  # fmt: skip
study_config = st.builds(
    StudyConfig,
    data=text,
    out=text,
    memory=st.none() | st.floats(1e-12, MOST_GIB),
    halving=st.booleans(),
    stop_at_target=st.booleans(),
    combine=st.booleans(),
    checkpoint_every=at_least_0,
    grid=grid,
    training=training,
    reading=reading,
    compute=compute,
)


@given(train_config | teach_config | study_config)
def test_options_go_to_toml_and_back(
    tmp_path_factory: pytest.TempPathFactory, options: TrainConfig | TeachConfig | StudyConfig
) -> None:
    path = tmp_path_factory.getbasetemp() / "options.toml"
    path.write_text(options_text(options), encoding="utf-8")
    assert read_options(path, type(options)) == options
    other = dataclasses.replace(options, out=options.out + "x")
    assert read_options(path, type(options)) != other


def test_the_round_trip_draws_every_option() -> None:
    """A new option must be added to the strategies above; otherwise the round trip only tests its default."""
    source = Path(__file__).read_text(encoding="utf-8")
    built = {
        node.args[0].id: {keyword.arg for keyword in node.keywords}
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "builds"
        and isinstance(node.args[0], ast.Name)
    }
    drawn = (
        ColumnOptions,
        DataOptions,
        TrainingOptions,
        AdapterSpec,
        ComputeOptions,
        GridOptions,
        TrainConfig,
        TeachConfig,
        StudyConfig,
    )
    built["AdapterSpec"] = built.pop("adapter_spec")
    for kind in drawn:
        assert built[kind.__name__] == {field.name for field in dataclasses.fields(kind)}


def read(tmp_path: Path, raw: str, kind: type = TrainConfig) -> Any:
    path = tmp_path / "a.toml"
    path.write_text(raw, encoding="utf-8")
    return read_options(path, kind)


def test_options_missing_in_a_file_keep_their_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "") == TrainConfig()
    made = read(tmp_path, 'data = "x"\n[adapter]\nrank = 4\nalpha = 8\ntargets = ["query"]\n[training]\nsteps = 7\n')
    assert made == TrainConfig(
        data="x", adapter=AdapterSpec(rank=4, alpha=8.0, targets=("query",)), training=TrainingOptions(steps=7)
    )
    assert isinstance(made.adapter.alpha, float)
    assert made != TrainConfig()


def test_all_problems_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    raw = """
        dta = "x"
        out = 3
        seed = true
        adapter = 5
        [training]
        batch_size = 1.5
        steps = "ten"
        head = "max"
        warmup = 2.0
        [reading]
        drop_overlap = 1
        columns = "text"
        label_names = ["a", 2]
        max_length = 1
        fraction = 0.2
    """
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, raw)
    title, *problems = str(caught.value).splitlines()
    names = [field.name for field in dataclasses.fields(DataOptions)]
    assert title == f"13 problems in the options ({tmp_path / 'a.toml'}):"
    assert sorted(problems) == sorted(
        f"  - {problem}"
        for problem in [
            "dta is not known; known here: data, model, out, seed, lr, lr_ratio, adapter, training, reading, compute, "
            "stop_at_target, folds, checkpoint_every",
            "out is 3: a string is expected",
            "seed is True: a whole number is expected",
            "adapter is 5: a table is expected",
            "training.batch_size is 1.5: a whole number is expected",
            "training.steps is 'ten': a whole number is expected",
            "training.head is 'max': one of auto, pooler, trained-pooler, mean is expected",
            "warmup is 2.0: it must be at least 0 and below 1 (fraction of the steps)",
            "reading.drop_overlap is 1: true or false is expected",
            "reading.columns.columns is 'text': a list is expected",
            "reading.label_names is ['a', 2]: a string is expected",
            f"reading.fraction is not known; known here: {', '.join(names)}",
            "max_length is 1: a text needs at least 3 tokens, two of them special",
        ]
    )


@pytest.mark.parametrize("value", ['"1.5"', "true", "[1.5]", "1979-05-27"])
def test_a_number_of_another_type_is_rejected(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"adapter\.alpha is .*: a number is expected"):
        read(tmp_path, f"[adapter]\nalpha = {value}\n")
    assert read(tmp_path, "[adapter]\nalpha = 1\n").adapter.alpha == 1.0


OLD_STUDY = Path(__file__).parents[1] / "data" / "study-of-schema-1" / "config.toml"
OLD_TRAIN = """
data = "news-mini"
model = "tiny-en"
out = "somewhere"
seed = 7
stop_at_target = true

[lora]
rank = 8
alpha = 16.0
dropout = 0.1
targets = ["query"]
scaling = "rslora"
lr = 0.002

[training]
head = "mean"
target_accuracy = 0.7
precision = "bf16"
threads = 3

[reading]
text_column = "body"
label_column = "topic"
columns = ["topic", "body"]
max_length = 64
"""
OLD_DISTILLATION = """
teacher = "large"
text = ["a.txt"]
out = "small"
width = 64
precision = "fp32"
threads = 2
resume = false
"""


def test_a_study_of_the_first_layout_is_read() -> None:
    study = read_options(OLD_STUDY, StudyConfig)
    assert (study.data, study.grid.models, study.grid.alphas) == ("ag_news", ("tiny_base",), (64.0, 256.0, 512.0))
    assert study.compute == ComputeOptions(precision="auto")
    assert (study.training.target_score, study.training.weight_decay) == (0.85, 0.0)
    assert study.reading.label_names == ("World", "Sports", "Business", "Sci/Tech")
    assert study.reading.columns == ColumnOptions()


def test_a_training_of_the_first_layout_is_read(tmp_path: Path) -> None:
    made = read(tmp_path, OLD_TRAIN)
    assert made == TrainConfig(
        data="news-mini",
        model="tiny-en",
        out="somewhere",
        seed=7,
        lr=0.002,
        adapter=AdapterSpec(rank=8, alpha=16.0, dropout=0.1, targets=("query",), scaling="rslora"),
        training=TrainingOptions(head="mean", target_score=0.7),
        reading=DataOptions(columns=ColumnOptions("body", "topic", ("topic", "body")), max_length=64),
        compute=ComputeOptions(precision="bf16", threads=3),
        stop_at_target=True,
    )
    again = read(tmp_path, options_text(made))
    assert again == made
    assert "[lora]" not in options_text(made)


def test_a_distillation_of_the_first_layout_is_read(tmp_path: Path) -> None:
    made = read(tmp_path, OLD_DISTILLATION, module.DistillConfig)
    assert (made.teacher, made.width) == ("large", 64)
    assert made.compute == ComputeOptions(precision="fp32", threads=2)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (OLD_TRAIN.replace("rank = 8", "rank = -8"), "rank is -8: it must be 0"),
        (OLD_TRAIN.replace("rank = 8", 'rank = "8"'), "adapter.rank is '8': a whole number is expected"),
        (OLD_TRAIN.replace("lr = 0.002", "lr = 0.0"), "lr is 0.0: it must be above 0"),
        (OLD_TRAIN.replace("threads = 3", "threads = 0"), "threads is 0: it must be from 1"),
        (OLD_TRAIN.replace("target_accuracy = 0.7", "target_accuracy = 7.0"), "target_score is 7.0: it must be"),
        (OLD_TRAIN.replace('text_column = "body"', "text_column = 1"), "reading.columns.text_column is 1: a string"),
        ("[adapter]\nrank = 4\n[lora]\nrank = 8\n", "lora is not known; known here: data, model"),
        ("[compute]\nthreads = 2\n[training]\nthreads = 3\n", "training.threads is not known; known here: head"),
    ],
)
def test_a_problem_in_a_file_of_the_first_layout_is_reported(tmp_path: Path, raw: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, raw)
    title, problem = str(caught.value).splitlines()
    assert title == f"1 problem in the options ({tmp_path / 'a.toml'}):"
    assert problem.startswith(f"  - {words}")


def test_a_file_of_another_command_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(options_text(StudyConfig()))
    with pytest.raises(ConfigError, match="grid is not known; known here: data, model"):
        read_options(tmp_path / "study.toml", TrainConfig)
    assert read_options(tmp_path / "study.toml", StudyConfig) == StudyConfig()


def test_files_that_cannot_be_read_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: no such file"):
        read_options(tmp_path / "gone.toml", TrainConfig)
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\); give a TOML file"):
        read_options(tmp_path, TrainConfig)
    with pytest.raises(ConfigError, match=r"a\.toml: not valid TOML \(.*line 2"):
        read(tmp_path, 'data = "x"\nmodel = \n')
    for endless in (f"seed = {'9' * 5000}", f"data = {'[' * 9999}"):
        with pytest.raises(ConfigError, match=r"a\.toml: not valid TOML \("):
            read(tmp_path, endless)
    (tmp_path / "a.toml").write_bytes(b'data = "caf\xe9"\n')
    with pytest.raises(ConfigError, match=r"a\.toml: not valid TOML \(.*utf-8"):
        read_options(tmp_path / "a.toml", TrainConfig)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b'\xef\xbb\xbfdata = "x"\n')
    assert read_options(tmp_path / "a.toml", TrainConfig).data == "x"


def test_options_that_are_none_are_omitted_from_the_file(tmp_path: Path) -> None:
    assert "steps" not in options_text(TrainConfig())
    assert "steps = 3" in options_text(TrainConfig(training=TrainingOptions(steps=3)))


def test_all_linear_is_every_target() -> None:
    assert resolve_targets((ALL_LINEAR,)) == TARGETS
    assert resolve_targets(("value", "query")) == ("query", "value")
    assert resolve_targets(("output", "key", "output")) == ("key", "output")
    assert len(set(TARGETS)) == 6


OPTION_FILES = [*sorted((SOURCES / "config").glob("*.py")), SOURCES / "adapters" / "spec.py"]


def option_classes() -> dict[str, ast.ClassDef]:
    """The option classes in the source, by name."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in OPTION_FILES]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef) and node.decorator_list]
    return {node.name: node for node in classes}


def leaves(kind: type, path: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Every option of a class and of the classes nested in it, by its path."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from leaves(hints[field.name], f"{path}{field.name}.")
        else:
            yield f"{path}{field.name}", field


def test_the_source_defines_every_option_class() -> None:
    kinds = {name for name, value in vars(module).items() if dataclasses.is_dataclass(value)}
    assert (
        set(option_classes())
        == kinds
        >= {"TrainConfig", "StudyConfig", "EvaluateConfig", "PredictConfig", "ShowConfig", "Interface"}
    )


def field_docstrings(kind: ast.ClassDef) -> dict[str, str]:
    """The docstrings of the fields of a class."""
    return {
        field.target.id: after.value.value
        for field, after in pairwise(kind.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }


def helps(kind: str) -> dict[str, list[str]]:
    """The helps of each option of a class, without nested classes: docstring, mark of the type, metadata."""
    owner = getattr(module, kind)
    hints, classes = typing.get_type_hints(owner, include_extras=True), option_classes()
    written = {}
    for own in reversed(owner.__mro__):  # with those that it inherits
        written |= field_docstrings(classes[own.__name__]) if own.__name__ in classes else {}
    found = {}
    for field in dataclasses.fields(owner):
        texts = [written.get(field.name), field.metadata.get("help")]
        texts += [getattr(mark, "help", None) for mark in getattr(hints[field.name], "__metadata__", ())]
        if not dataclasses.is_dataclass(hints[field.name]) or any(texts):
            found[field.name] = [text for text in texts if text]
    return found


@pytest.mark.parametrize("kind", sorted(option_classes()))
def test_every_option_has_one_help(kind: str) -> None:
    found = helps(kind)
    for name, texts in found.items():
        assert len(texts) == 1, f"{kind}.{name} has {len(texts)} helps"
        assert texts[0].endswith("."), f"{kind}.{name}: a sentence ends with a full stop"
        assert "\n" not in texts[0], f"{kind}.{name}: one line, as --help shows it"
    hints = typing.get_type_hints(getattr(module, kind))
    nested = {name for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    assert found.keys() | nested == hints.keys()
    assert not found.keys() & nested


def written_helps(source: str) -> Iterator[str]:
    """The helps in a source text: docstrings of the fields of classes, and values named ``help``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            yield from field_docstrings(node).values()
        elif isinstance(node, ast.Call):
            yield from (ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg == "help")
        elif isinstance(node, ast.Dict):
            named = zip(node.keys, node.values, strict=True)
            yield from (ast.literal_eval(v) for k, v in named if isinstance(k, ast.Constant) and k.value == "help")


def test_every_help_is_written_once() -> None:
    found = [text for path in OPTION_FILES for text in written_helps(path.read_text(encoding="utf-8"))]
    assert {text: count for text, count in Counter(found).items() if count > 1} == {}
    shown = {text for kind in option_classes() for texts in helps(kind).values() for text in texts}
    assert set(found) == shown, "all helps are found, and none is unused"


def test_the_help_of_the_targets_names_all_of_them() -> None:
    listed = TARGETS_HELP["help"].partition(": ")[2].removesuffix(".").replace(" or ", " ").split(", ")
    assert listed == [*TARGETS, ALL_LINEAR]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_of_a_command_has_one_name_and_its_help_is_shown(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [leaf for part in COMMANDS[name].parts for leaf in leaves(part)]
    names = [path.rpartition(".")[2] for path, _ in options]
    assert len(set(names)) == len(names) > 0
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as caught:
        parse([name, "--help"])
    assert caught.value.code == 0
    shown = " ".join(re.sub("[\u2500-\u257f]", " ", capsys.readouterr().out).split())
    for owner in {type_of(part, path) for part in COMMANDS[name].parts for path, _ in leaves(part)}:
        for option, (words,) in helps(owner.__name__).items():
            assert shown.count(" ".join(words.replace("``", "`").split())) == 1 or shown.count(words) == 1, (
                option,
                words,
            )


def type_of(kind: type, path: str) -> type:
    """The class that the option of a path belongs to."""
    for name in path.split(".")[:-1]:
        kind = typing.get_type_hints(kind)[name]
    return kind


@functools.cache
def attributes_read() -> set[str]:
    """Names of all attributes that the package reads outside the option classes."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES.rglob("*.py") if path not in OPTION_FILES)
    return {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


@pytest.mark.parametrize("kind", sorted(option_classes()))
def test_no_option_is_unused(kind: str) -> None:
    read_names = attributes_read()
    assert "an_option_that_is_not" not in read_names
    assert {field.name for field in dataclasses.fields(getattr(module, kind))} - read_names == set()
