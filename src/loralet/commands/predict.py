"""``loralet predict``."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path

from loralet.commands.threads import set_threads
from loralet.config import PredictConfig
from loralet.data.files import SUFFIXES, Columns, read_table
from loralet.errors import ConfigError, DataError
from loralet.hub.bundled import DATA, FOLDER
from loralet.inference.ensemble import find_adapters, load_ensemble
from loralet.report.predictions import WRITERS


def predict(config: PredictConfig) -> None:
    """Classify texts and print them in the order they came."""
    set_threads(config.threads)
    if config.texts and config.file:
        raise ConfigError("give texts or --file, not both")
    adapters = find_adapters(Path(config.folder), config.run, config.runs, config.also)
    texts = list(config.texts)
    if not texts and not config.file and sys.stdin.isatty():
        texts = _bundled_texts()
    elif not texts:
        texts = _read_texts(config.file or "-", config.text_column)
    ensemble = load_ensemble(adapters, config.precision, config.any_backbone, config.label_names, config.backbone)
    if len(adapters) > 1:
        print(f"· mean probability of {', '.join(artifact.id for artifact in ensemble.artifacts)}", file=sys.stderr)
    elif not config.run and not config.runs and adapters[0] != Path(config.folder):
        print(f"· using {ensemble.artifacts[0].id}, which validation chose", file=sys.stderr)
    WRITERS[config.format](ensemble.predict(texts), ensemble.labels, sys.stdout)


def _bundled_texts() -> list[str]:
    print(f"· no text named: using the test texts of {DATA}, which comes with loralet", file=sys.stderr)
    return list(read_table(FOLDER / DATA / "test.csv", Columns()).texts.to_pylist())


def _read_texts(file: str, text_column: str) -> list[str]:
    if file != "-" and Path(file).suffix.lower() in SUFFIXES:
        return list(
            read_table(Path(file), Columns(text=text_column), labelled=False, keep_empty=True).texts.to_pylist()
        )
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
            raise DataError(
                f"{'standard input' if file == '-' else file}: row {number} is not UTF-8; save it as UTF-8"
            ) from error
    if not texts:
        raise DataError(f"{'standard input' if file == '-' else file}: there is no text in it")
    return texts
