"""The command line interface. torch is imported only when a command needs it."""

from __future__ import annotations

import dataclasses
import errno
import gc
import io
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from rich.console import Console

from loralet import __version__
from loralet.config import (
    AverageConfig,
    CheckConfig,
    CompareConfig,
    DistillConfig,
    EvaluateConfig,
    ExportConfig,
    InspectConfig,
    Interface,
    ModelsConfig,
    Planning,
    PredictConfig,
    PushConfig,
    ReportConfig,
    ResumeConfig,
    RunsConfig,
    ShowConfig,
    StudyConfig,
    TeachConfig,
    TrainConfig,
    with_preset,
)
from loralet.config.hints import foreign_options
from loralet.config.limits import size_problems
from loralet.errors import ConfigError, LoraletError, UserError, is_out_of_memory, is_utf8
from loralet.interrupts import Interrupted
from loralet.runtime import prepare_runtime
from loralet.terminal import prepare_streams, terminal


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        summary: help text, one sentence.
        function: ``module:function`` that implements it; imported when the command runs.
        parts: option classes, in the order of the function's arguments.
    """

    summary: str
    function: str
    parts: tuple[type[Any], ...]


COMMANDS: dict[str, Command] = {
    "study": Command(
        "Train a grid of LoRA configurations in one pass, with baselines, and compare them.",
        "loralet.commands.study:study",
        (StudyConfig, Interface, Planning),
    ),
    "train": Command("Train one LoRA configuration.", "loralet.commands.study:train", (TrainConfig, Interface)),
    "teach": Command(
        "Train a small classifier on its labels and on the probabilities of larger classifiers.",
        "loralet.commands.teach:teach",
        (TeachConfig, Interface),
    ),
    "check": Command(
        "Find rows with likely wrong labels, copies and near copies in a data set, and list them in a CSV file.",
        "loralet.commands.check:check",
        (CheckConfig, Interface),
    ),
    "resume": Command(
        "Continue an interrupted study, training or distillation.", "loralet.commands.resume:resume", (ResumeConfig,)
    ),
    "evaluate": Command(
        "Evaluate a trained run on labelled data.", "loralet.commands.evaluate:evaluate", (EvaluateConfig,)
    ),
    "predict": Command("Classify texts with a trained run.", "loralet.commands.predict:predict", (PredictConfig,)),
    "show": Command("Print the results table of a run folder.", "loralet.commands.show:show", (ShowConfig,)),
    "runs": Command(
        "List run folders with data, model, accuracy and date.", "loralet.commands.runs:runs", (RunsConfig,)
    ),
    "compare": Command(
        "Compare trained runs on the same test rows, with paired tests.",
        "loralet.commands.compare:compare",
        (CompareConfig,),
    ),
    "report": Command(
        "Write the report of a run folder as one self-contained HTML page and as Markdown.",
        "loralet.commands.report:report",
        (ReportConfig,),
    ),
    "inspect": Command(
        "Describe a model, adapter, run folder or data set; compare models.",
        "loralet.commands.inspect:inspect",
        (InspectConfig,),
    ),
    "models": Command(
        "List backbones that work well, with short names for --model; makes no request.",
        "loralet.commands.models:models",
        (ModelsConfig,),
    ),
    "average": Command(
        "Average the weight updates and heads of several adapters into one adapter.",
        "loralet.commands.average:average",
        (AverageConfig,),
    ),
    "export": Command(
        "Export a run to transformers, ONNX, or one self-contained folder.",
        "loralet.commands.export:export",
        (ExportConfig,),
    ),
    "push": Command("Upload an adapter to the Hugging Face Hub.", "loralet.commands.push:push", (PushConfig,)),
    "distill": Command(
        "Distil a small BERT from a larger encoder and unlabelled texts.",
        "loralet.commands.distill:distill",
        (DistillConfig, Interface),
    ),
}


PACKAGES = {"sklearn": "scikit-learn", "_cffi_backend": "cffi"}
"""Names of packages whose module has another name. Installations without torch lack several."""
FLAT = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
"""Options have their own names, without those of the classes that contain them."""


def parse(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse command-line arguments, validate the options, and return the command to run.

    With ``--config`` or ``--preset``, the arguments are parsed twice: first to find these options, then with the
    defaults that they set.

    Raises:
        ConfigError: invalid values, all in one message.
        SystemExit: status 2 after a usage message, 0 after ``--help`` or ``--version``.
    """
    if list(arguments) in (["--version"], ["-V"]):
        print(f"loralet {__version__}")
        raise SystemExit(0)
    problems = [f"{os.fsencode(text)!r} is not UTF-8" for text in arguments if not is_utf8(text)]
    if problems:
        advice = "convert texts to UTF-8 (or put them into a UTF-8 file for --file), and rename files to UTF-8 names"
        raise ConfigError(f"{'; '.join(problems)}: {advice}")
    if problems := list(foreign_options(arguments)):
        raise ConfigError.listing(problems)
    name, parts = _parsed(arguments, {})
    defaults = _defaults(parts)
    if defaults is not None:
        name, parts = _parsed(arguments, {name: defaults})
    problems = list(size_problems(parts[0]))
    if not problems and hasattr(parts[0], "problems"):
        problems = list(parts[0].problems())
    if problems:
        raise ConfigError.listing(problems)
    return partial(_run, COMMANDS[name], parts)


def _parsed(arguments: Sequence[str], defaults: Mapping[str, tuple[Any, ...]]) -> tuple[str, tuple[Any, ...]]:
    """The command's name and options; ``defaults`` overrides the default options of the commands it contains.

    The parser of one command is built in a fraction of the time of all. All are built only for help and after a
    mistake, as the messages name options of other commands too.
    """
    name = next(iter(arguments), "")
    if name in COMMANDS:
        kind = _parser_class(name, COMMANDS[name])
        default = {"default": kind(*defaults[name])} if name in defaults else {}
        hidden = io.StringIO()
        with suppress(SystemExit), redirect_stdout(hidden), redirect_stderr(hidden):
            return name, _parts(tyro.cli(kind, args=arguments[1:], config=FLAT, **default))
    return _parsed_by_all(arguments, defaults)


def _parsed_by_all(arguments: Sequence[str], defaults: Mapping[str, tuple[Any, ...]]) -> tuple[str, tuple[Any, ...]]:
    """As :func:`_parsed`, with the parsers of all commands.

    Raises:
        SystemExit: status 2 after a usage message, 0 after help.
    """
    kinds = {name: _parser_class(name, command) for name, command in COMMANDS.items()}
    choices = []
    for name, kind in kinds.items():
        default = {"default": kind(*defaults[name])} if name in defaults else {}
        choices.append(Annotated[kind, tyro.conf.subcommand(name, **default)])
    command: Any = tyro.cli(  # type: ignore[call-overload]  # a union built at run time
        Union[tuple(choices)],
        prog="loralet",
        description="Fine-tune tiny BERT-family encoders with LoRA, many configurations at once.",
        args=list(arguments) or ["--help"],
        config=FLAT,
    )
    return next(name for name, kind in kinds.items() if isinstance(command, kind)), _parts(command)


def _parts(command: Any) -> tuple[Any, ...]:
    """The options of a parsed command, one part per option class."""
    return tuple(getattr(command, field.name) for field in dataclasses.fields(command))


def _parser_class(name: str, command: Command) -> type[Any]:
    """The dataclass of a command's option classes for the parser. Parts without required options have defaults."""
    fields: list[Any] = []
    part: Any
    for i, part in enumerate(command.parts):
        flat = Annotated[part, tyro.conf.arg(name="")]
        optional = all(_has_default(field) for field in dataclasses.fields(part))
        default = [dataclasses.field(default_factory=part)] if optional else []
        fields.append((f"part_{i}", flat, *default))
    made = dataclasses.make_dataclass(f"{name.title()}Command", fields, frozen=True)
    made.__doc__ = command.summary
    return made


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _defaults(parts: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Defaults set by ``--config``, then overridden by ``--preset``; None if neither is given."""
    options, *others = parts
    file = next((part.config for part in others if isinstance(part, Interface)), "")
    preset = next((part.preset for part in others if isinstance(part, Planning)), "")
    if not file and not preset:
        return None
    kind = type(options)
    options = kind()
    if file:
        from loralet.config.toml import read_options

        options = read_options(Path(file), kind)
    if isinstance(options, StudyConfig):
        options = with_preset(options, preset)
    return options, *(type(part)() for part in others)


def _run(command: Command, parts: tuple[Any, ...]) -> None:
    module, _, function = command.function.partition(":")
    getattr(import_module(module), function)(*parts)


def run() -> int:
    """The program ``loralet``: :func:`main` in a process of its own.

    Python searches for garbage several times while it exits. Frozen objects are left out, which saves a tenth of the
    time of one prediction.
    """
    status = main()
    gc.freeze()
    return status


def _lacking(error: Exception) -> tuple[str, int] | None:
    """The message and the exit status for a missing package or for too little memory; None for another error."""
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "loralet").partition(".")[0]
        if package == "loralet":
            return None
        return f"this needs {package}, which is not installed: pip install {PACKAGES.get(package, package)}", 2
    if not is_out_of_memory(error):
        return None
    advice = "use a smaller --batch-size or --max-length, or a lower --memory for a study"
    reason = f" ({str(error).splitlines()[0][:300]})" if str(error) else ""
    return f"not enough memory; {advice}{reason}", 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Exit status: 0 on success, 2 after a user error, 1 after another failure, 130 after Ctrl-C.

    A training that SIGTERM ends has 143.
    """
    prepare_streams()
    console = terminal(stderr=True)
    prepare_runtime()
    logging.basicConfig(format="· %(message)s", level=logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # without a home, it says so; reports need none
    try:
        parse(sys.argv[1:] if arguments is None else arguments)()
        sys.stdout.flush()
        return 0
    except LoraletError as error:
        _say(console, str(error))
        return 2 if isinstance(error, UserError) else 1
    except (ModuleNotFoundError, MemoryError, RuntimeError) as error:
        known = _lacking(error)
        if known is None:
            raise
        _say(console, known[0])
        return known[1]
    except Interrupted as error:
        _say(console, error.text)
        return 128 + error.number
    except KeyboardInterrupt:
        _say(console, "interrupted; files already written are kept")
        return 130
    except BrokenPipeError:
        # The reader closed the pipe (`| head`). This is not an error.
        _abandon_output()
        return 0
    except OSError as error:
        if error.filename is None:
            _abandon_output()
        _say(console, f"{error.filename or 'input or output'}: {error.strerror or error}")
        mistakes = (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
        return 2 if isinstance(error, mistakes) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else 1


def _abandon_output() -> None:
    """Keep Python from reporting at exit that standard output cannot be written."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(console: Console, text: str) -> None:
    console.print(f"loralet: {text}", style="red", highlight=False, markup=False, soft_wrap=True)
