"""``loralet report``."""

from __future__ import annotations

from pathlib import Path

from loralet.config import ReportConfig
from loralet.errors import ConfigError
from loralet.show.report import write_report
from loralet.store.atomic import write_json
from loralet.studies.analysis import analyse


def report(config: ReportConfig) -> None:
    """Write the report of a run folder and say where it is."""
    say_reports(write_reports(config))


def write_reports(config: ReportConfig) -> tuple[list[Path], str]:
    """Write what is wanted; returns the files, and why there are no texts, where they were wanted and there are none.

    Raises:
        ConfigError: a file would take the place of a folder.
        RunError: see :func:`loralet.studies.analysis.analyse`.
    """
    folder = Path(config.folder)
    html, md = report_files(folder, config.out, config.format)
    taken = [str(path) for path in (html, md, Path(config.json) if config.json else None) if path and path.is_dir()]
    if taken:
        raise ConfigError(f"{', '.join(taken)}: there is a folder of that name; name a file")
    analysis = analyse(folder, config.texts)
    written = write_report(analysis, html, md)
    if config.json:
        write_json(Path(config.json), analysis.to_json())
        written.append(Path(config.json))
    return written, analysis.examples.note if config.texts and analysis.examples else ""


def say_reports(written: tuple[list[Path], str]) -> None:
    """Print where the files are."""
    paths, note = written
    for path in paths:
        print(f"report: {path}")
    if note:
        print(note)


def report_files(folder: Path, out: str, form: str) -> tuple[Path | None, Path | None]:
    """Where the page and the Markdown go, None for the one that is not wanted. Of both, each takes its own ending."""
    path = Path(out) if out else folder / "report.html"
    html = path if out and form == "html" else path.with_suffix(".html")
    md = path if out and form == "md" else path.with_suffix(".md")
    return (None if form == "md" else html), (None if form == "html" else md)
