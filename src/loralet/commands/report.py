"""``loralet report``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from loralet.atomic import write_json
from loralet.config import ReportConfig
from loralet.errors import ConfigError
from loralet.records import read_json
from loralet.report.analysis import Analysis, analyse
from loralet.report.page import write_report
from loralet.terminal import visible


def report(config: ReportConfig) -> None:
    """Write the report of a run folder and print its paths."""
    say_reports(write_reports(config))


def write_reports(config: ReportConfig) -> tuple[list[Path], str]:
    """Write the requested files. Returns their paths, and why requested texts are missing (empty if they are not).

    Raises:
        ConfigError: a path is a folder, or an existing file whose extension is not that of a report.
        RunError: see :func:`loralet.report.analysis.analyse`.
    """
    folder = Path(config.run.folder)
    html, md = report_files(folder, config.out, config.format)
    places = [(html, ".html"), (md, ".md"), (Path(config.json) if config.json else None, ".json")]
    taken = [str(path) for path, _ in places if path and path.is_dir()]
    if taken:
        raise ConfigError(f"{', '.join(taken)}: is a folder; give a file name")
    foreign = [str(path) for path, ending in places if path and path.exists() and path.suffix.lower() != ending]
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)}: exists and does not have the extension of a report, so it is not overwritten; "
            "give another file name"
        )
    if config.json and Path(config.json).exists() and not _is_analysis(Path(config.json)):
        raise ConfigError(
            f"{config.json}: exists and is no analysis of a run, so it is not overwritten; give another name"
        )
    analysis = analyse(folder, config.texts)
    written = write_report(analysis, html, md)
    if config.json:
        write_json(Path(config.json), analysis.to_json())
        written.append(Path(config.json))
    return written, analysis.note if config.texts else ""


def _is_analysis(path: Path) -> bool:
    """Whether a file has the keys of an analysis, of this or a similar version."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return False
    known = {field.name for field in fields(Analysis)}
    return isinstance(found, dict) and 2 * len(known & found.keys()) > len(known)


def say_reports(written: tuple[list[Path], str]) -> None:
    """Print the paths of the files."""
    paths, note = written
    for path in paths:
        print(visible(f"report: {path}"))
    if note:
        print(visible(note))


def report_files(folder: Path, out: str, form: str) -> tuple[Path | None, Path | None]:
    """The paths of the HTML page and of the Markdown file; None for a format that is not requested.

    Args:
        folder: the run folder.
        out: path given by the user; if empty, report.html and report.md in the run folder.
        form: ``html``, ``md`` or ``both``. With ``both``, the file extension is added for each.
    """
    path = Path(out) if out else folder / "report.html"
    # The dot in a name such as lora-lr0.002 does not start a file extension.
    bare = path.with_suffix("") if path.suffix.lower() in (".html", ".md") else path
    html = path if out and form == "html" else bare.with_name(f"{bare.name}.html")
    md = path if out and form == "md" else bare.with_name(f"{bare.name}.md")
    return (None if form == "md" else html), (None if form == "html" else md)
