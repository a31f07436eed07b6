"""Options: limits, the way to TOML and back, and that each is told, documented and read."""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import loralet
from loralet import config as module
from loralet.config import (
    ALL_LINEAR,
    TARGETS,
    DataOptions,
    EvaluateConfig,
    GridOptions,
    LoraOptions,
    PredictConfig,
    StudyConfig,
    TrainConfig,
    TrainingOptions,
    resolve_targets,
)
from loralet.config.toml import read_options, write_options
from loralet.errors import ConfigError

SOURCES = Path(loralet.__file__).parent
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "options", [DataOptions(), TrainingOptions(), LoraOptions(), GridOptions(), TrainConfig(), StudyConfig()]
)
def test_defaults_are_possible(options: Any) -> None:
    assert list(options.problems()) == []


IMPOSSIBLE: list[tuple[type, str, list[Any], list[Any]]] = [
    (DataOptions, "validation_fraction", [0.0, 1.0, -0.1, NAN], [1e-9, 0.99]),
    (DataOptions, "split_seed", [-1], [0, 2**40]),
    (DataOptions, "max_length", [2, 0, -1], [3]),
    (DataOptions, "columns", [("text", "label", "text")], [("text", "label")]),
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
    (TrainingOptions, "target_accuracy", [0.0, 1.01, NAN], [0.01, 1.0]),
    (TrainingOptions, "patience", [0], [1, None]),
    (TrainingOptions, "threads", [0], [1, None]),
    (LoraOptions, "rank", [-1], [0, 1]),
    (LoraOptions, "alpha", [0.0, -1.0, NAN, INF], [0.01]),
    (LoraOptions, "dropout", [-0.1, 1.0, NAN], [0.0, 0.99]),
    (LoraOptions, "lr", [0.0, -1.0, NAN, INF], [1e-9]),
    (LoraOptions, "targets", [(), ("quary",), (ALL_LINEAR, "query")], [("query",), (ALL_LINEAR,), TARGETS]),
    (GridOptions, "models", [("a", "b", "a")], [(), ("a", "b")]),
    (GridOptions, "ranks", [(), (4, 4)], [(0, 4)]),
    (GridOptions, "alphas", [(), (1.0, 1.0)], [(1.0, 2.0)]),
    (GridOptions, "lrs", [(), (1.0, 1.0)], [(1.0, 2.0)]),
    (GridOptions, "seeds", [(), (1, 1), (0, -1)], [(0, 1)]),
    (GridOptions, "dropouts", [(), (0.1, 0.1)], [(0.0, 0.1)]),
    (GridOptions, "scalings", [(), ("rslora", "rslora")], [("alpha/r", "rslora")]),
    (GridOptions, "target_sets", [("query+value", "value+query")], [(), ("query+value", "all-linear")]),
    (GridOptions, "targets", [(), ("quary",), (ALL_LINEAR, "query")], [("query",)]),
    (GridOptions, "full_lr", [0.0, NAN, INF], [1e-9]),
    (GridOptions, "probe_lr", [0.0, NAN, INF], [1e-9]),
    (TrainConfig, "seed", [-1], [0, 2**40]),
    (EvaluateConfig, "threads", [0], [1, None]),
    (EvaluateConfig, "columns", [("text", "text")], [()]),
    (PredictConfig, "threads", [0], [1, None]),
]


@pytest.mark.parametrize(
    ("kind", "name", "value"), [(kind, name, value) for kind, name, wrong, _ in IMPOSSIBLE for value in wrong]
)
def test_every_impossible_value_is_told_by_its_name(kind: type, name: str, value: Any) -> None:
    required = {"folder": "run"} if kind in (EvaluateConfig, PredictConfig) else {}
    problems = list(kind(**required, **{name: value}).problems())
    assert len(problems) == 1
    assert problems[0].startswith(f"{name} ")
    assert ":" in problems[0]  # what was given, then what is allowed


@pytest.mark.parametrize(
    ("kind", "name", "value"), [(kind, name, value) for kind, name, _, right in IMPOSSIBLE for value in right]
)
def test_values_at_the_limit_are_taken(kind: type, name: str, value: Any) -> None:
    required = {"folder": "run"} if kind in (EvaluateConfig, PredictConfig) else {}
    assert list(kind(**required, **{name: value}).problems()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (GridOptions(ranks=(4, -1)), "rank is -1"),
        (GridOptions(alphas=(1.0, 0.0)), "alpha is 0.0"),
        (GridOptions(lrs=(1.0, -2.0)), "lr is -2.0"),
        (GridOptions(dropouts=(0.0, 1.0)), "dropout is 1.0"),
        (GridOptions(target_sets=("query+value", "query+quary")), "targets has quary"),
        (GridOptions(target_sets=("all-linear+value",)), "targets mixes all-linear"),
        (GridOptions(targets=("query", "quary", "kee")), "targets has quary, kee: the model has query, key, value"),
    ],
)
def test_one_impossible_value_of_a_grid_is_told_alone(options: GridOptions, words: str) -> None:
    (problem,) = options.problems()
    assert words in problem


def test_all_problems_of_all_parts_are_told() -> None:
    config = TrainConfig(
        seed=-1,
        lora=LoraOptions(rank=-1, alpha=0.0),
        training=TrainingOptions(batch_size=0),
        reading=DataOptions(max_length=1),
    )
    told = [problem.split()[0] for problem in config.problems()]
    assert told == ["seed", "rank", "alpha", "batch_size", "max_length"]
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
scaling = st.sampled_from(["alpha/r", "rslora"])
targets = st.just((ALL_LINEAR,)) | st.lists(st.sampled_from(TARGETS), min_size=1, max_size=3).map(tuple)


def several(values: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, min_size=least, max_size=3, unique=True).map(tuple)


reading = st.builds(
    DataOptions, text_column=text, label_column=text, columns=several(text), label_names=several(text), validation_fraction=share,
    split_seed=seed, drop_overlap=st.booleans(), max_length=st.integers(3, 512),
)  # fmt: skip
training = st.builds(
    TrainingOptions, head=st.sampled_from(["pooler", "trained-pooler", "mean"]), head_dropout=share, epochs=above_0, steps=st.none() | count,
    batch_size=count, schedule=st.sampled_from(["linear", "cosine", "constant"]), warmup=share, weight_decay=at_least_0, clip=at_least_0,
    eval_every=count, validation_sample=count, target_accuracy=share, patience=st.none() | count,
    precision=st.sampled_from(["auto", "fp32", "bf16"]), threads=st.none() | count,
)  # fmt: skip
lora = st.builds(
    LoraOptions, rank=st.integers(0, 512), alpha=above_0, dropout=share, targets=targets, scaling=scaling, lr=above_0
)
grid = st.builds(
    GridOptions, models=several(text), ranks=several(st.integers(0, 512), 1), alphas=several(above_0, 1), lrs=several(above_0, 1),
    seeds=several(seed, 1), dropouts=several(share, 1), targets=targets, scalings=several(scaling, 1),
    target_sets=st.just(()) | st.just(("query+value", "all-linear")), full=st.booleans(), full_lr=above_0, probe_lr=above_0,
)  # fmt: skip
train_config = st.builds(
    TrainConfig, data=text, model=text, out=text, seed=seed, lora=lora, training=training, reading=reading, stop_at_target=st.booleans()
)  # fmt: skip
study_config = st.builds(
    StudyConfig,
    data=text,
    out=text,
    memory=st.none() | above_0,
    halving=st.booleans(),
    stop_at_target=st.booleans(),
    combine=st.booleans(),
    grid=grid,
    training=training,
    reading=reading,
)


@given(train_config | study_config)
def test_options_go_to_toml_and_back(
    tmp_path_factory: pytest.TempPathFactory, options: TrainConfig | StudyConfig
) -> None:
    path = tmp_path_factory.getbasetemp() / "options.toml"
    write_options(path, options)
    assert read_options(path, type(options)) == options
    other = dataclasses.replace(options, out=options.out + "x")
    assert read_options(path, type(options)) != other


def test_the_round_trip_draws_every_option() -> None:
    """A new option must join the strategies above, or the round trip would only see its default."""
    source = Path(__file__).read_text(encoding="utf-8")
    built = {
        node.args[0].id: {keyword.arg for keyword in node.keywords}
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "builds"
        and isinstance(node.args[0], ast.Name)
    }
    for kind in (DataOptions, TrainingOptions, LoraOptions, GridOptions, TrainConfig, StudyConfig):
        assert built[kind.__name__] == {field.name for field in dataclasses.fields(kind)}


def read(tmp_path: Path, raw: str, kind: type = TrainConfig) -> Any:
    path = tmp_path / "a.toml"
    path.write_text(raw, encoding="utf-8")
    return read_options(path, kind)


def test_what_a_file_does_not_name_keeps_its_default(tmp_path: Path) -> None:
    assert read(tmp_path, "") == TrainConfig()
    made = read(tmp_path, 'data = "x"\n[lora]\nrank = 4\nalpha = 8\ntargets = ["query"]\n[training]\nsteps = 7\n')
    assert made == TrainConfig(
        data="x", lora=LoraOptions(rank=4, alpha=8.0, targets=("query",)), training=TrainingOptions(steps=7)
    )
    assert isinstance(made.lora.alpha, float)
    assert made != TrainConfig()


def test_everything_wrong_in_a_file_is_told_at_once(tmp_path: Path) -> None:
    raw = """
        dta = "x"
        out = 3
        seed = true
        lora = 5
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
    assert title == f"13 problems in the options ({tmp_path / 'a.toml'}):"
    assert sorted(problems) == sorted(
        f"  - {problem}"
        for problem in [
            "dta is not an option; known here: data, model, out, seed, lora, training, reading, stop_at_target",
            "out is 3: a string is expected",
            "seed is True: a whole number is expected",
            "lora is 5: a table is expected",
            "training.batch_size is 1.5: a whole number is expected",
            "training.steps is 'ten': a whole number is expected",
            "training.head is 'max': one of pooler, trained-pooler, mean is expected",
            "warmup is 2.0: it is a share of the steps, at least 0 and below 1",
            "reading.drop_overlap is 1: true or false is expected",
            "reading.columns is 'text': a list is expected",
            "reading.label_names is ['a', 2]: a string is expected",
            f"reading.fraction is not an option; known here: {', '.join(field.name for field in dataclasses.fields(DataOptions))}",
            "max_length is 1: a text needs at least 3 tokens, two of them special",
        ]
    )


@pytest.mark.parametrize("value", ['"1.5"', "true", "[1.5]", "1979-05-27"])
def test_numbers_are_numbers(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"lora\.lr is .*: a number is expected"):
        read(tmp_path, f"[lora]\nlr = {value}\n")
    assert read(tmp_path, "[lora]\nlr = 1\n").lora.lr == 1.0


def test_a_file_of_another_command_is_told(tmp_path: Path) -> None:
    write_options(tmp_path / "study.toml", StudyConfig())
    with pytest.raises(ConfigError, match="grid is not an option; known here: data, model"):
        read_options(tmp_path / "study.toml", TrainConfig)
    assert read_options(tmp_path / "study.toml", StudyConfig) == StudyConfig()


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: no such file"):
        read_options(tmp_path / "gone.toml", TrainConfig)
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\); name a TOML file"):
        read_options(tmp_path, TrainConfig)
    with pytest.raises(ConfigError, match=r"a\.toml: not valid TOML \(.*line 2"):
        read(tmp_path, 'data = "x"\nmodel = \n')
    (tmp_path / "a.toml").write_bytes(b'data = "caf\xe9"\n')
    with pytest.raises(ConfigError, match=r"a\.toml: not valid TOML \(.*utf-8"):
        read_options(tmp_path / "a.toml", TrainConfig)


def test_options_that_are_none_are_left_out_of_the_file(tmp_path: Path) -> None:
    write_options(tmp_path / "a.toml", TrainConfig())
    assert "steps" not in (tmp_path / "a.toml").read_text()
    write_options(tmp_path / "a.toml", TrainConfig(training=TrainingOptions(steps=3)))
    assert "steps = 3" in (tmp_path / "a.toml").read_text()


def test_all_linear_is_every_target() -> None:
    assert resolve_targets((ALL_LINEAR,)) == TARGETS
    assert resolve_targets(("value", "query")) == ("query", "value")
    assert resolve_targets(("output", "key", "output")) == ("key", "output")
    assert len(set(TARGETS)) == 6


def option_classes() -> dict[str, ast.ClassDef]:
    """The option classes as they are written."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((SOURCES / "config").glob("*.py"))]
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def test_the_source_shows_every_option() -> None:
    kinds = {name for name, value in vars(module).items() if dataclasses.is_dataclass(value)}
    assert (
        set(option_classes())
        == kinds
        >= {"TrainConfig", "StudyConfig", "EvaluateConfig", "PredictConfig", "ShowConfig", "Interface"}
    )


@pytest.mark.parametrize("kind", sorted(option_classes()))
def test_every_option_has_a_docstring(kind: str) -> None:
    body = option_classes()[kind].body
    classes = set(option_classes())
    described = 0
    for field, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if not isinstance(field, ast.AnnAssign) or ast.unparse(field.annotation) in classes:
            continue
        assert isinstance(field.target, ast.Name)
        assert isinstance(after, ast.Expr), f"{kind}.{field.target.id} has no docstring"
        assert isinstance(after.value, ast.Constant), f"{kind}.{field.target.id} has no docstring"
        assert isinstance(after.value.value, str)
        assert after.value.value.endswith("."), f"{kind}.{field.target.id}: a sentence ends with a full stop"
        assert "\n" not in after.value.value, f"{kind}.{field.target.id}: one line, as --help shows it"
        described += 1
    nested = sum(
        field.name in ("lora", "training", "reading", "grid") for field in dataclasses.fields(getattr(module, kind))
    )
    assert described + nested == len(dataclasses.fields(getattr(module, kind)))


@functools.cache
def attributes_read() -> set[str]:
    """Names of the attributes that the package reads anywhere outside the option classes."""
    trees = (
        ast.parse(path.read_text(encoding="utf-8"))
        for path in SOURCES.rglob("*.py")
        if path.parent != SOURCES / "config"
    )
    return {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


@pytest.mark.parametrize("kind", sorted(option_classes()))
def test_no_option_is_dead(kind: str) -> None:
    read_names = attributes_read()
    assert "an_option_that_is_not" not in read_names
    # --config and --preset are taken from the command line before the options are parsed, so that they can set their defaults.
    by_hand = {"Interface": {"config"}, "Planning": {"preset"}}.get(kind, set())
    assert {field.name for field in dataclasses.fields(getattr(module, kind))} - by_hand - read_names == set()
