"""``loralet report``."""

from __future__ import annotations

from pathlib import Path

from loralet.atomic import write_json
from loralet.config import ReportConfig
from loralet.errors import ConfigError
from loralet.report.analysis import analyse
from loralet.report.page import write_report


def report(config: ReportConfig) -> None:
    """Write the report of a run folder and print where it is."""
    say_reports(write_reports(config))


def write_reports(config: ReportConfig) -> tuple[list[Path], str]:
    """Write the files that the options ask for; returns them, and why they show no texts where texts were wanted.

    Raises:
        ConfigError: there is a folder of a file's name, or another file whose extension is not that of a report.
        RunError: see :func:`loralet.report.analysis.analyse`.
    """
    folder = Path(config.folder)
    html, md = report_files(folder, config.out, config.format)
    places = [(html, ".html"), (md, ".md"), (Path(config.json) if config.json else None, ".json")]
    taken = [str(path) for path, _ in places if path and path.is_dir()]
    if taken:
        raise ConfigError(f"{', '.join(taken)}: there is a folder of that name; name a file")
    foreign = [str(path) for path, ending in places if path and path.exists() and path.suffix.lower() != ending]
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)}: there is a file of that name without the extension of a report; it would be lost, "
            "so name another file"
        )
    analysis = analyse(folder, config.texts)
    written = write_report(analysis, html, md)
    if config.json:
        write_json(Path(config.json), analysis.to_json())
        written.append(Path(config.json))
    return written, analysis.note if config.texts else ""


def say_reports(written: tuple[list[Path], str]) -> None:
    """Print where the files are."""
    paths, note = written
    for path in paths:
        print(f"report: {path}")
    if note:
        print(note)


def report_files(folder: Path, out: str, form: str) -> tuple[Path | None, Path | None]:
    """The files of the page and of the Markdown; None for the one that is not wanted.

    Args:
        folder: the run folder.
        out: the file that the user named; empty: report.html and report.md in the run folder.
        form: ``html``, ``md`` or ``both``. With ``both``, the file extension is added for each.
    """
    path = Path(out) if out else folder / "report.html"
    # The dot in lora-lr0.002 does not begin an extension.
    bare = path.with_suffix("") if path.suffix.lower() in (".html", ".md") else path
    html = path if out and form == "html" else bare.with_name(f"{bare.name}.html")
    md = path if out and form == "md" else bare.with_name(f"{bare.name}.md")
    return (None if form == "md" else html), (None if form == "html" else md)
