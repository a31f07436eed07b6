"""Command lines and options: one parser, with defaults set by files and presets."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import command, options, parts

from loralet import cli
from loralet.adapters.spec import AdapterSpec
from loralet.cli import COMMANDS, parse
from loralet.config import PRESETS, ComputeOptions, GridOptions, Interface, StudyConfig, TrainConfig, TrainingOptions
from loralet.config.toml import options_text
from loralet.errors import ConfigError

FILE = """
data = "from the file"
seed = 3
lr = 0.5

[adapter]
rank = 5
targets = ["query"]

[training]
steps = 7

[compute]
threads = 2
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with option files; the name of one looks like a flag."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.toml", "--seed", "-x.toml"):
        (tmp_path / name).write_text(FILE)
    return tmp_path


def status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


FROM_FILE = TrainConfig(
    data="from the file",
    seed=3,
    lr=0.5,
    adapter=AdapterSpec(rank=5, targets=("query",)),
    training=TrainingOptions(steps=7),
    compute=ComputeOptions(threads=2),
)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config", "a.toml"),
        ("--config=a.toml",),
        ("--config", "gone.toml", "--config", "a.toml"),
        ("--config=--seed",),
        ("--config=-x.toml",),
    ],
)
def test_a_file_changes_the_defaults(arguments: tuple[str, ...]) -> None:
    assert options("train", *arguments) == FROM_FILE
    assert options("train") == TrainConfig() != FROM_FILE


def test_flags_override_the_file_in_any_position() -> None:
    before = options("train", "mine.csv", "--rank", "9", "--config", "a.toml")
    after = options("train", "--config=a.toml", "--rank", "9", "mine.csv")
    assert before == after
    assert (before.data, before.adapter.rank, before.seed, before.training.steps) == ("mine.csv", 9, 3, 7)
    assert before.adapter.targets == ("query",)
    back = options("train", "--config", "a.toml", "--steps", "None", "--targets", "all-linear", "--threads", "None")
    assert (back.training.steps, back.adapter.targets, back.compute.threads) == (None, ("all-linear",), None)


def test_a_value_that_looks_like_a_flag_stays_a_value() -> None:
    named = options("train", "--out=--config=a.toml")
    assert (named.out, named.data) == ("--config=a.toml", "news-mini")
    named = options("train", "--out=--config", "a.toml")
    assert (named.out, named.data, named.seed) == ("--config", "a.toml", 0)
    own, interface = parts("train", "--config=a.toml", "--out=--quiet")
    assert (own.out, interface.quiet) == ("--quiet", False)
    assert options("predict", "run", "--", "--config", "a.toml").input.texts == ("--config", "a.toml")


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--config"),
        ("train", "--config", "--quiet"),
        ("train", "--out", "--config", "a.toml"),
        ("--config", "a.toml", "train"),
        ("predict", "run", "--config", "a.toml"),
        ("study", "--preset"),
        ("study", "--preset", "rank-beta"),
        ("train", "--preset", "rank-alpha"),
        ("study", "--no-such-flag"),
        ("nonsense",),
    ],
)
def test_unknown_arguments_give_status_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert status(*arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "run", "caf\udce9"),
        ("predict", "run", "fine", "--label-names", "caf\udce9", "b"),
        ("predict", "--file=caf\udce9", "run"),
        ("train", "caf\udce9"),
        ("train", "rows.csv", "--out", "caf\udce9"),
        ("train", "rows.csv", "--columns", "caf\udce9", "label"),
        ("caf\udce9", "--help"),
    ],
)
def test_an_argument_that_is_not_utf_8_is_one_error(arguments: tuple[str, ...], here: Path) -> None:
    done = command(here, *arguments)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith("loralet: b'")
    assert r"caf\xe9' is not UTF-8: convert texts to UTF-8" in line


def test_other_option_groups_keep_their_flags_with_a_file() -> None:
    own, interface, planning = parts("study", "--preset", "rank-alpha", "--quiet", "--dry-run", "--no-report")
    assert interface == Interface(quiet=True)
    assert (planning.preset, planning.dry_run, planning.report) == ("rank-alpha", True, False)
    assert own.grid.ranks == PRESETS["rank-alpha"]["ranks"]
    _, interface = parts("train", "--config", "a.toml", "--json-events")
    assert interface == Interface(config="a.toml", json_events=True)


def test_defaults_then_file_then_preset_then_flags(here: Path) -> None:
    given = StudyConfig("x", grid=GridOptions(ranks=(2,), alphas=(3.0,), lrs=(0.5,), dropouts=(0.25,)), halving=True)
    (here / "study.toml").write_text(options_text(given))
    found = options("study", "--alphas", "9", "--config", "study.toml", "--preset=base-vs-lora")
    grid = found.grid
    assert (found.data, found.halving, grid.lrs) == ("x", True, (0.5,)), "of the file"
    assert (grid.ranks, grid.dropouts, grid.models) == ((16,), (0.1,), PRESETS["base-vs-lora"]["models"]), (
        "of the preset"
    )
    assert grid.alphas == (9.0,), "of the flag"
    assert grid.seeds == GridOptions().seeds, "of the defaults"
    assert options("study", "--config", "study.toml") == given
    assert options("study", "--preset", "") == StudyConfig()
    assert options("study") == StudyConfig() != given


def test_every_preset_is_valid_and_listed_if_an_unknown_one_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    for name, values in PRESETS.items():
        found = options("study", "--preset", name)
        assert list(found.problems()) == []
        assert all(getattr(found.grid, option) == value for option, value in values.items())
    assert status("study", "--preset", "x") == 2
    refused = capsys.readouterr().err
    assert all(name in refused for name in PRESETS)


def test_an_invalid_file_is_reported_first() -> None:
    with pytest.raises(ConfigError, match=r"^--config gone\.toml: no such file$"):
        parse(["train", "--config", "gone.toml"])
    Path("bad.toml").write_text("seed = -1\nsed = 2\n")
    with pytest.raises(ConfigError) as caught:
        parse(["train", "--config=bad.toml", "--rank", "-1"])
    assert str(caught.value).splitlines()[0] == "2 problems in the options (bad.toml):"
    Path("study.toml").write_text(options_text(StudyConfig()))
    with pytest.raises(ConfigError, match=r"grid is not known"):
        parse(["train", "--config", "study.toml"])


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--target-score", ("--target-score", "0.7")),
        ("--target-accuracy", ("--target-accuracy", "0.7")),
        ("--target-accuracy=", ("--target-accuracy=0.7",)),
        ("--target_accuracy", ("--target_accuracy", "0.7")),
    ],
)
def test_the_old_name_of_the_target_option_works(flag: str, words: tuple[str, ...]) -> None:
    for name in ("train", "study"):
        assert options(name, *words).training.target_score == 0.7
        assert options(name).training.target_score == TrainingOptions().target_score != 0.7
    assert "target_accuracy" not in options_text(options("train", *words))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("study", ("--dropout", "0.2"), ("--dropouts", "0.2")),
        ("study", ("--scaling", "rslora"), ("--scalings", "rslora")),
    ],
)
def test_other_aliases(name: str, old: tuple[str, ...], new: tuple[str, ...]) -> None:
    assert options(name, *old) == options(name, *new) != options(name)


def test_positional_arguments_are_in_documented_order(capsys: pytest.CaptureFixture[str]) -> None:
    evaluated = options("evaluate", "run", "data.csv", "--threads", "1")
    assert (evaluated.runs.one.folder, evaluated.rows.data) == ("run", "data.csv")
    predicted = options("predict", "run", "a text", "another", "--format", "csv")
    assert (predicted.runs.one.folder, predicted.input.texts) == ("run", ("a text", "another"))
    pushed = options("push", "run", "me/mine", "--private")
    assert (pushed.one.folder, pushed.upload.repo, pushed.upload.private) == ("run", "me/mine", True)
    assert options("average", "a", "b").folders == ("a", "b")
    orders = {"evaluate": "RUN DATA", "predict": "RUN TEXT", "push": "RUN ID", "export": "RUN", "distill": "TEACHER"}
    for name, order in orders.items():
        assert status(name, "--help") == 0
        usage = capsys.readouterr().out.split("\n\n")[0]
        assert [word for word in usage.split() if word in ("RUN", "DATA", "TEXT", "ID", "TEACHER")] == order.split()


def test_all_problems_of_a_command_line_are_one_message(here: Path) -> None:
    done = command(
        here, "train", "--rank", "-1", "--alpha", "0", "--batch-size", "0", "--threads", "0", "--max-length", "1"
    )
    assert (done.returncode, done.stdout) == (2, "")
    title, *problems = done.stderr.splitlines()
    assert title == "loralet: 5 problems in the options:"
    assert [problem.split()[1] for problem in problems] == ["rank", "alpha", "batch_size", "max_length", "threads"]


def test_without_arguments_the_help_lists_every_command(here: Path) -> None:
    bare, asked = command(here), command(here, "--help")
    assert (bare.returncode, bare.stdout) == (0, asked.stdout)
    for name, listed in COMMANDS.items():
        assert name in bare.stdout
        assert listed.summary.split()[0] in bare.stdout
    assert command(here, "--version").stdout == command(here, "-V").stdout


@pytest.mark.parametrize(
    "line",
    [
        "predict runs/news first -- --second",
        "train --config a.toml --rank 4 --targets query key --json-events",
        "study news.csv --preset rank-alpha --seeds 0 1",
        "distill teacher --text a b --out student --layers 1",
        "models",
    ],
)
def test_the_parser_of_one_command_gives_what_those_of_all_give(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    every = cli._parsed_by_all
    monkeypatch.setattr(cli, "_parsed_by_all", lambda *given: calls.append(given) or every(*given))
    found = cli.parse(line.split())
    assert not calls
    monkeypatch.setattr(cli, "_parsed", cli._parsed_by_all)
    wanted = cli.parse(line.split())
    assert calls
    assert found.args == wanted.args  # type: ignore[attr-defined]  # a partial


def test_after_a_mistake_the_options_of_all_commands_are_listed_once(capfd: pytest.CaptureFixture[str]) -> None:
    assert status("distill", "teacher", "--rank", "x") == 2
    out, err = capfd.readouterr()
    assert (out, err.count("Unrecognized or misplaced")) == ("", 1)
    assert "in loralet train --help" in err
    assert status("train", "data", "--rank", "x") == 2
    assert capfd.readouterr().err.count("Error parsing --rank") == 1


@pytest.mark.parametrize(
    ("module", "package"), [("torch", "torch"), ("sklearn.svm", "scikit-learn"), ("_cffi_backend", "cffi")]
)
def test_a_missing_package_is_named_without_a_traceback(
    here: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    def fail(*_: object) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(cli, "_run", fail)
    done = command(here, "models")
    assert done.returncode == 2
    assert done.stderr.endswith(f"which is not installed: pip install {package}\n")
    module = "loralet.commands.models"
    with pytest.raises(ModuleNotFoundError):
        command(here, "models")
