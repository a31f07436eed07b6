"""The sources never execute data: no eval, no shell, no pickle that may run code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import loralet

ROOT = Path(__file__).parents[2]
OTHERS = [path for folder in ("scripts", "benchmarks") for path in (ROOT / folder).glob("*.py")]
SOURCES = sorted([*Path(loralet.__file__).parent.rglob("*.py"), *OTHERS, ROOT / "hatch_build.py"])
EXECUTE = {"eval", "exec", "compile", "__import__"}
PICKLES = ("load", "loads", "dump", "dumps")
FORBIDDEN = {f"{module}.{name}" for module in ("pickle", "marshal", "joblib") for name in PICKLES}
FORBIDDEN |= {"os.system", "os.popen", "torch.save", "yaml.load", "subprocess.getoutput"}


def problems(source: str) -> list[str]:
    """Calls that execute data, or that a shell interprets."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in EXECUTE or name in FORBIDDEN:
            found.append(name)
        if name == "torch.load" and options.get("weights_only") != "True":
            found.append("torch.load without weights_only")
        if options.get("shell", "False") != "False":
            found.append("shell")
        if options.get("allow_pickle", "False") != "False":
            found.append("allow_pickle")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_source_executes_data(path: Path) -> None:
    assert problems(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "subprocess.run('ls', shell=True)",
        "np.load(path, allow_pickle=True)",
        "pickle.loads(data)",
    ],
)
def test_such_calls_are_found(source: str) -> None:
    assert problems(source)
