"""The figures of the page of a single run, with captions."""

from __future__ import annotations

from dataclasses import replace

from loralet.report.analysis import Analysis
from loralet.report.coverage import coverage_text
from loralet.report.figures.classes import MOST_CLASSES, class_panel
from loralet.report.figures.confusion import MOST_LABELS, confusion_panel
from loralet.report.figures.course import course_panels
from loralet.report.figures.coverage import coverage_panel
from loralet.report.figures.reliability import reliability_panel
from loralet.report.figures.style import Drawing
from loralet.report.run.content import RunPage
from loralet.report.sections.single_label import calibration_text
from loralet.runs.run import HYBRID
from loralet.terminal import shown_label

NAMES = ("classes", "confidence", "course")
"""Names of the figures; those without data are left out."""


def draw_run(analysis: Analysis, page: RunPage) -> list[Drawing]:
    """Draw all figures that the run folder has data for."""
    drawn = [_classes(page), _confidence(page)]
    curves = tuple(course_panels(analysis))
    drawn.append(Drawing("course", "Training", _course(analysis, page), curves))
    return [drawing for drawing in drawn if drawing.panels]


def _classes(page: RunPage) -> Drawing:
    panels = []
    caption = ""
    if page.classes:
        shown = [replace(scores, label=shown_label(scores.label)) for scores in page.classes]
        panels.append(class_panel(shown, page.measured.text))
        caption = "Bars: rows of each class; the coloured part is classified correctly."
        if len(page.classes) > MOST_CLASSES:
            caption += f" The {MOST_CLASSES} classes with the lowest F1 are shown."
    if page.confusion is not None and len(page.confusion) <= MOST_LABELS:
        labels = [shown_label(scores.label) for scores in page.classes]
        panels.append(confusion_panel(labels, page.confusion, f"{page.measured.split} rows"))
        caption += (
            " Confusion matrix: each line sums to the rows of one label; shading is the square root of the share."
        )
    return Drawing("classes", "Classes", caption.strip(), tuple(panels))


def _confidence(page: RunPage) -> Drawing:
    if page.calibration is None or page.coverage is None:
        return Drawing("confidence", "Confidence", "", ())
    rows = f"{page.measured.split} rows"
    panels = (reliability_panel(page.calibration), coverage_panel(page.coverage.points))
    fitted_on = "validation" if page.measured.folds is None else "out-of-fold"
    scaling, test = page.scaling, page.measured.split == "test"
    error = None if scaling is None else scaling.test if test else scaling.validation
    calibration = calibration_text(page.calibration, scaling, error, ("the classifier", fitted_on))
    caption = (
        "Reliability diagram: with perfect calibration, the dots lie on the dotted line; bars are 95 % intervals. "
        f"{calibration} {coverage_text(page.coverage, 'the classifier', rows)}"
    )
    return Drawing("confidence", "Confidence", caption, panels)


def _course(analysis: Analysis, page: RunPage) -> str:
    data, training = analysis.data, analysis.training
    sample = min(training.validation_sample, data.held_out_rows)
    combined = " Both are those of the encoder, before it is combined with the linear model on words."
    return (
        f"Loss of the training batches, smoothed, and accuracy on a fixed sample of {sample:,} {data.held_out} rows "
        f"every {training.eval_every} steps; its axis does not start at zero."
    ) + (combined if page.classifier.role == HYBRID else "")
