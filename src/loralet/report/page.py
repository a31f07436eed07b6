"""Writes the report as one self-contained HTML page, and as Markdown with the same content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from loralet.atomic import new_file, new_folder
from loralet.report.analysis import Analysis
from loralet.report.class_scores import classes_text
from loralet.report.drawings import draw
from loralet.report.figures.style import Drawing, Panel
from loralet.report.run.content import RunPage
from loralet.report.run.drawings import NAMES as RUN_DRAWINGS
from loralet.report.run.tables import class_note as run_class_note
from loralet.report.run.tables import class_table as run_class_table
from loralet.report.run.tables import confidence_note, confusion_table, model_table, row_tables, run_headline, run_marks
from loralet.report.sections.base import ExampleTable
from loralet.report.summary import facts, headline
from loralet.report.tables import class_table, marks_text, tables
from loralet.terminal import visible

TEXT_SHOWN = 600
"""Maximum number of characters of a row's text in the report."""


def cut(text: str) -> str:
    """The text on one line, truncated to :data:`TEXT_SHOWN` characters."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_SHOWN else line[: TEXT_SHOWN - 1] + "…"


def markdown(text: object) -> str:
    """The text on one line, escaped for Markdown and for HTML in Markdown."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|$~#" else c for c in line)


def _inline(panel: Panel) -> Markup:
    return Markup(panel.svg)


def _templates(escape: bool) -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("loralet.report"),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"md": markdown, "cut": cut, "svg": _inline}
    return templates


def html_templates() -> jinja2.Environment:
    """The templates of pages, which escape all texts."""
    return _templates(True)


def _context(analysis: Analysis, drawings: Sequence[Drawing]) -> dict[str, object]:
    """What the templates show."""
    if analysis.run is not None:
        return run_context(analysis, analysis.run, drawings)
    examples: Sequence[ExampleTable] = analysis.section.tables() if analysis.section else ()
    return {
        "analysis": analysis,
        "headline": headline(analysis),
        "facts": facts(analysis),
        "marks": marks_text(analysis),
        "tables": tables(analysis),
        "class_table": class_table(analysis),
        "class_note": classes_text(analysis.classes) if analysis.classes else "",
        "drawings": drawings,
        "findings_under": "grid" if any(drawing.name == "grid" for drawing in drawings) else "course",
        "examples": examples,
    }


def run_context(analysis: Analysis, page: RunPage, drawings: Sequence[Drawing]) -> dict[str, object]:
    """What the templates show of a single run."""
    found = {"results": model_table(page), "confusions": confusion_table(page)}
    return {
        "analysis": analysis,
        "page": page,
        "headline": run_headline(page),
        "facts": facts(analysis),
        "marks": run_marks(page),
        "tables": found,
        "class_table": run_class_table(page),
        "class_note": run_class_note(page),
        "confidence_note": confidence_note(page),
        "drawings": dict.fromkeys(RUN_DRAWINGS) | {drawing.name: drawing for drawing in drawings},
        "examples": row_tables(page),
    }


def render_html(analysis: Analysis, drawings: Sequence[Drawing]) -> str:
    """Render the report as one page without external resources.

    Args:
        analysis: values and sentences.
        drawings: figures of the analysis.
    """
    name = f"{_template(analysis)}.html.j2"
    return visible(html_templates().get_template(name).render(_context(analysis, drawings)))


def render_markdown(analysis: Analysis, drawings: Sequence[Drawing], figures: str) -> str:
    """Render the report as Markdown.

    Args:
        analysis: values and sentences.
        drawings: figures of the analysis.
        figures: relative path of the folder with the figures.
    """
    name = f"{_template(analysis)}.md.j2"
    return visible(_templates(False).get_template(name).render(_context(analysis, drawings), figures=figures))


def _template(analysis: Analysis) -> str:
    return "report" if analysis.run is None else "run"


def write_report(analysis: Analysis, html: Path | None, md: Path | None) -> list[Path]:
    """Write the report, each file atomically. Returns the paths written.

    Args:
        analysis: values and sentences.
        html: path of the HTML page; None: no page.
        md: path of the Markdown file; None: no Markdown. Its figures are written to a folder next to it.
    """
    drawings = draw(analysis)
    written: list[Path] = []
    if html:
        with new_file(html) as temporary:
            temporary.write_text(render_html(analysis, drawings), encoding="utf-8")
        written.append(html)
    if md:
        figures = md.with_name(f"{md.stem}-figures")
        theme = _templates(False).get_template("theme.css.j2").render()
        with new_folder(figures) as folder:
            for panel in (panel for drawing in drawings for panel in drawing.panels):
                (folder / f"{panel.name}.svg").write_text(_with_theme(panel.svg, theme), encoding="utf-8")
        with new_file(md) as temporary:
            temporary.write_text(render_markdown(analysis, drawings, figures.name), encoding="utf-8")
        written += [md, figures]
    return written


def _with_theme(svg: str, theme: str) -> str:
    """The SVG of a panel with the page's colours included, for use as a separate file."""
    end = svg.index(">")
    style = f"<style>{theme}svg{{color:var(--ink);background:var(--page);font-family:var(--sans)}}</style>"
    return f"{svg[: end + 1]}{style}{svg[end + 1 :]}"
