"""The public names of ``import loralet``, and its lazy imports."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys

import pytest

import loralet
from loralet import errors
from loralet.cli import COMMANDS
from loralet.errors import LoraletError, TrainingError, UserError

HEAVY = ("torch", "sklearn", "scipy", "transformers", "peft", "pandas", "pyarrow", "matplotlib", "huggingface_hub")


def error_classes() -> dict[str, type[LoraletError]]:
    """All error classes of loralet, by name."""
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, LoraletError)
    }


def test_the_public_names_are_the_classifier_load_the_errors_and_the_version() -> None:
    assert len(error_classes()) > 5
    assert sorted(loralet.__all__) == sorted({"TextClassifier", "load", "__version__"} | error_classes().keys())
    assert dir(loralet) == sorted(loralet.__all__)
    for name, value in error_classes().items():
        assert getattr(loralet, name) is value
    assert re.fullmatch(r"\d+\.\d+\.\d+", loralet.__version__)


def test_every_public_name_can_be_imported_and_has_a_docstring() -> None:
    names: dict[str, object] = {}
    exec("from loralet import *", names)
    assert set(loralet.__all__) <= names.keys()
    from loralet import classifier

    assert names["TextClassifier"] is classifier.TextClassifier is loralet.TextClassifier
    assert names["load"] is classifier.load is loralet.load
    for name in loralet.__all__:
        assert name == "__version__" or inspect.getdoc(names[name]), name


def test_there_are_no_other_names() -> None:
    with pytest.raises(AttributeError, match="module 'loralet' has no attribute 'LoraClassifier'"):
        loralet.LoraClassifier  # noqa: B018
    with pytest.raises(ImportError):
        exec("from loralet import Classifier")


def test_the_error_hierarchy_matches_its_documentation() -> None:
    drawn: list[tuple[str, str]] = []
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([\u2502\u251c\u2514\u2500 ]*)(\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            above[depth:] = [found[2]]
            drawn.append((found[2], above[depth - 1] if depth else ""))
    actual = [
        (name, kind.__bases__[0].__name__ if kind is not LoraletError else "") for name, kind in error_classes().items()
    ]
    assert sorted(drawn) == sorted(actual)
    assert ("InputError", "DataError") in drawn


def test_errors_are_of_the_types_expected_by_scikit_learn() -> None:
    assert issubclass(loralet.ConfigError, ValueError)
    assert issubclass(loralet.InputError, ValueError)
    assert not issubclass(TrainingError, UserError)


def imported(code: str) -> set[str]:
    """The heavy packages imported by a new process that runs some code."""
    code = f"import json, sys\n{code}\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_imports_no_heavy_packages() -> None:
    assert imported("import loralet\nloralet.ConfigError, loralet.__version__, dir(loralet)") == set()
    assert "torch" in imported("import loralet\nloralet.TextClassifier")


def test_help_of_every_command_imports_no_heavy_packages() -> None:
    lines = ["from loralet.cli import main"]
    for arguments in ([], ["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)):
        lines += ["try:", f"    main({arguments!r})", "except SystemExit as error:", "    assert not error.code"]
    assert imported("\n".join(lines)) == set()


def test_invalid_options_are_reported_without_heavy_imports() -> None:
    code = "from loralet.cli import main\nassert main(['train', '--rank', '-1', '--threads', '0']) == 2"
    assert imported(code) == set()
