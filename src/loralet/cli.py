"""The front door. Commands are functions of option classes; torch is imported only when a command needs it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from rich.console import Console

from loralet import __version__
from loralet.config import (
    AverageConfig,
    DistillConfig,
    EvaluateConfig,
    ExportConfig,
    InspectConfig,
    Interface,
    Planning,
    PredictConfig,
    PushConfig,
    ReportConfig,
    ShowConfig,
    StudyConfig,
    TrainConfig,
    with_preset,
)
from loralet.errors import ConfigError, LoraletError, UserError


@dataclass(frozen=True)
class Study:
    """Train a grid of LoRA configurations side by side, with base rows, and compare them."""

    options: Annotated[StudyConfig, tyro.conf.arg(name="")] = field(default_factory=StudyConfig)
    interface: Interface = field(default_factory=Interface)
    planning: Planning = field(default_factory=Planning)

    def __call__(self) -> None:
        from loralet.commands.study import study

        study(self.options, self.interface, self.planning)


@dataclass(frozen=True)
class Train:
    """Train one LoRA configuration."""

    options: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    interface: Interface = field(default_factory=Interface)

    def __call__(self) -> None:
        from loralet.commands.study import train

        train(self.options, self.interface)


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained run on labelled data."""

    options: Annotated[EvaluateConfig, tyro.conf.arg(name="")]

    def __call__(self) -> None:
        from loralet.commands.evaluate import evaluate

        evaluate(self.options)


@dataclass(frozen=True)
class Predict:
    """Classify texts with a trained run."""

    options: Annotated[PredictConfig, tyro.conf.arg(name="")]

    def __call__(self) -> None:
        from loralet.commands.predict import predict

        predict(self.options)


@dataclass(frozen=True)
class Average:
    """Make one adapter of several: the mean of their updates and heads."""

    options: Annotated[AverageConfig, tyro.conf.arg(name="")]

    def __call__(self) -> None:
        from loralet.commands.average import average

        average(self.options)


@dataclass(frozen=True)
class Show:
    """Print the table of a run folder."""

    options: Annotated[ShowConfig, tyro.conf.arg(name="")]

    def __call__(self) -> None:
        from loralet.commands.show import show

        show(self.options)


@dataclass(frozen=True)
class Report:
    """Write the report of a run folder: one self-contained page, and Markdown of the same."""

    options: Annotated[ReportConfig, tyro.conf.arg(name="")]

    def __call__(self) -> None:
        from loralet.commands.report import report

        report(self.options)


@dataclass(frozen=True)
class Export:
    """Write a run for transformers, for ONNX, or as one folder that needs nothing else."""

    options: Annotated[ExportConfig, tyro.conf.arg(name="")]

    def __call__(self) -> None:
        from loralet.commands.export import export

        export(self.options)


@dataclass(frozen=True)
class Push:
    """Upload an adapter to the hub."""

    options: Annotated[PushConfig, tyro.conf.arg(name="")]

    def __call__(self) -> None:
        from loralet.commands.push import push

        push(self.options)


@dataclass(frozen=True)
class Inspect:
    """Say what a model, adapter, run folder or data set is; compare models."""

    options: Annotated[InspectConfig, tyro.conf.arg(name="")]

    def __call__(self) -> None:
        from loralet.commands.inspect import inspect

        inspect(self.options)


@dataclass(frozen=True)
class Distill:
    """Build a small BERT from a larger encoder and unlabelled texts."""

    options: Annotated[DistillConfig, tyro.conf.arg(name="")] = field(default_factory=DistillConfig)
    interface: Interface = field(default_factory=Interface)

    def __call__(self) -> None:
        from loralet.commands.distill import distill

        distill(self.options, self.interface)


COMMANDS: dict[str, type] = {
    "study": Study,
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "show": Show,
    "report": Report,
    "inspect": Inspect,
    "average": Average,
    "export": Export,
    "push": Push,
    "distill": Distill,
}
CONFIGURED: dict[str, type] = {"study": StudyConfig, "train": TrainConfig, "distill": DistillConfig}


def parse(arguments: Sequence[str]) -> Callable[[], None]:
    """The command meant by command-line arguments, its options checked.

    Raises:
        ConfigError: impossible values, all in one message.
        SystemExit: status 2 with a usage message, or 0 after ``--help`` or ``--version``.
    """
    if list(arguments) in (["--version"], ["-V"]):
        print(f"loralet {__version__}")
        raise SystemExit(0)
    defaults = _chosen_defaults(arguments)
    choices = [
        Annotated[kind, tyro.conf.subcommand(name, **({"default": defaults[name]} if name in defaults else {}))]
        for name, kind in COMMANDS.items()
    ]
    command: Any = tyro.cli(  # type: ignore[call-overload]  # a union made at run time, so that a file can set defaults
        Union[tuple(choices)],
        prog="loralet",
        description="Fine-tune tiny BERT-family encoders with LoRA, many configurations at once.",
        args=list(arguments) or ["--help"],
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    problems = list(command.options.problems()) if hasattr(command.options, "problems") else []
    if problems:
        raise ConfigError.listing(problems)
    return command  # type: ignore[no-any-return]  # one of COMMANDS


def _chosen_defaults(arguments: Sequence[str]) -> dict[str, Any]:
    """Defaults of the command: those of the file that ``--config`` names, and over them those of ``--preset``."""
    name = arguments[0] if arguments else ""
    file, preset = _last_value(arguments, "--config"), _last_value(arguments, "--preset")
    if name not in CONFIGURED or not (file or (preset and name == "study")):
        return {}
    options: Any = CONFIGURED[name]()
    if file:
        from loralet.config.toml import read_options

        options = read_options(Path(file), CONFIGURED[name])
    return {name: COMMANDS[name](options=with_preset(options, preset) if name == "study" else options)}


def _last_value(arguments: Sequence[str], flag: str) -> str:
    """The value that a flag has on the command line, empty where it is not given; the last one counts."""
    given = [
        a.removeprefix(f"{flag}=") if a.startswith(f"{flag}=") else b
        for a, b in pairwise([*arguments, ""])
        if a.split("=")[0] == flag
    ]
    return given[-1] if given else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 2 for a user's mistake, 1 for a failure, 130 after Ctrl-C."""
    console = Console(stderr=True)
    # Threads that spin while they wait bring two busy programs on one machine to a near halt (dev/LOG.md); read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(format="· %(message)s", level=logging.WARNING)
    try:
        parse(sys.argv[1:] if arguments is None else arguments)()
        return 0
    except UserError as error:
        console.print(f"loralet: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return 2
    except LoraletError as error:
        console.print(f"loralet: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("loralet: interrupted; what was written before is kept", style="red")
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); nothing is wrong, and Python must not complain when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        console.print(
            f"loralet: {error.filename or 'input or output'}: {error.strerror or error}",
            style="red",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return 2 if isinstance(error, (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)) else 1
