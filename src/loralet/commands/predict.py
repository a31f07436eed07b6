"""``loralet predict``."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path

from loralet.commands.backends import announce
from loralet.config import PredictConfig
from loralet.errors import ConfigError, DataError
from loralet.hub.bundled import DATA, FOLDER
from loralet.inference.adapters import find_adapters
from loralet.inference.ensemble import load_ensemble
from loralet.report.predictions import WRITERS
from loralet.runtime import using_threads


def predict(config: PredictConfig) -> None:
    """Classify texts and print the predictions in input order."""
    runs, given = config.runs, config.input
    if given.texts and given.file:
        raise ConfigError("texts and --file are both given: use one of them")
    with using_threads(config.compute.threads):
        adapters = find_adapters(runs)
        texts = list(given.texts)
        if not texts and not given.file and sys.stdin.isatty():
            texts = _bundled_texts()
        elif not texts:
            texts = _read_texts(given.file or "-", given.text_column)
        ensemble = load_ensemble(adapters, config.model, config.compute)
        announce(ensemble.backends)
        if len(adapters) > 1:
            members = ", ".join(artifact.id for artifact in ensemble.artifacts)
            print(f"· mean probability of {members}", file=sys.stderr)
        elif not runs.one.run and not runs.runs and adapters[0] != Path(runs.one.folder):
            artifact = ensemble.artifacts[0]
            how = "" if artifact.provenance.folds else ", the run chosen on validation"
            print(f"· using {artifact.id}{how}", file=sys.stderr)
        WRITERS[config.format](ensemble.predict(texts), ensemble.labels, sys.stdout)


def _bundled_texts() -> list[str]:
    print(f"· no text given: using the test texts of the bundled {DATA}", file=sys.stderr)
    from loralet.data.files import Columns, read_table

    return list(read_table(FOLDER / DATA / "test.csv", Columns()).texts.to_pylist())


def _read_texts(file: str, text_column: str) -> list[str]:
    from loralet.data.files import SUFFIXES, Columns, read_table  # imports Arrow, which takes a while

    if file != "-" and Path(file).suffix.lower() in SUFFIXES:
        table = read_table(Path(file), Columns(text=text_column), labelled=False, keep_empty=True)
        return list(table.texts.to_pylist())
    name = "standard input" if file == "-" else file
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    raw = raw.removeprefix(codecs.BOM_UTF8)
    lines = raw.removesuffix(b"\n").split(b"\n") if raw else []
    texts: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            texts.append(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            raise DataError(f"{name}: row {number} is not UTF-8; save it as UTF-8") from error
    if not texts:
        raise DataError(f"{name}: contains no text")
    return texts
