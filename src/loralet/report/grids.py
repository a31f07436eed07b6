"""Grids of rank and alpha, and correlations of accuracy and convergence with the settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from loralet.adapters.spec import AdapterSpec
from loralet.report.configurations import Configuration, grid_rows, setting_text, varied_settings
from loralet.report.statistics import spearman

FEWEST_CELLS = 3
"""Minimum number of cells for a rank correlation."""
MOST_EQUAL = 3
"""Maximum number of reported groups of cells with equal effective scale."""


@dataclass(frozen=True)
class Cell:
    """One rank and alpha of a grid.

    Args:
        rank, alpha: its settings.
        effective: scale times learning rate.
        accuracy: on the test split, or on the validation split without a test split.
        low, high: 95 % interval of the test accuracy.
        converged: first check at the target score; None if it was not reached.
        censored: whether the target was not reached.
        text: the convergence step as text; ``>N`` if the target was not reached within N steps.
        winner, tied: see :class:`loralet.report.configurations.Configuration`.
    """

    rank: int
    alpha: float
    effective: float
    accuracy: float | None
    low: float | None
    high: float | None
    converged: float | None
    censored: bool
    text: str
    winner: bool
    tied: bool


@dataclass(frozen=True)
class Grid:
    """Rank and alpha of one model, all other settings fixed.

    Args:
        title: the model, and the fixed settings that differ between grids.
        model: label of the model.
        ranks, alphas: in ascending order.
        cells: cells of the grid; combinations may be missing.
    """

    title: str
    model: str
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class EqualScale:
    """Cells of one grid with equal effective scale and different ranks: the effect of rank at equal step size.

    Args:
        effective: scale times learning rate.
        names, accuracies: names and accuracies of the cells, by ascending rank.
    """

    effective: float
    names: tuple[str, ...]
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Trend:
    """Rank correlations (Spearman) over the cells of one grid; None if a variable is constant.

    Args:
        title: see :class:`Grid`.
        cells: number of cells.
        accuracy_alpha, accuracy_rank, accuracy_effective: accuracy with alpha, rank and effective scale.
        late_alpha, late_rank, late_effective: convergence step with the same; censored runs rank last.
        alpha_is_effective: alpha with the effective scale. The closer to 1, the less their effects can be separated.
        equal: cells with equal effective scale.
    """

    title: str
    cells: int
    accuracy_alpha: float | None
    accuracy_rank: float | None
    accuracy_effective: float | None
    late_alpha: float | None
    late_rank: float | None
    late_effective: float | None
    alpha_is_effective: float | None
    equal: tuple[EqualScale, ...]


@dataclass(frozen=True)
class Fixed:
    """Settings shared by the cells of a grid: model, learning rate (None if it varies), lr ratio, and other options."""

    model: str
    learning_rate: float | None
    lr_ratio: float | None
    settings: AdapterSpec


def grids(rows: Sequence[Configuration]) -> tuple[Grid, ...]:
    """The grids of a study."""
    families = _families(rows)
    found: list[Grid] = []
    for fixed, members in families.items():
        cells = tuple(_cell(row) for row in members)
        ranks, alphas = sorted({cell.rank for cell in cells}), sorted({cell.alpha for cell in cells})
        found.append(Grid(_title(fixed, list(families)), fixed.model, tuple(ranks), tuple(alphas), cells))
    return tuple(found)


def trends(rows: Sequence[Configuration]) -> tuple[Trend, ...]:
    """Correlations over all cells that differ only in rank, alpha and learning rate, if there are at least three."""
    pooled: dict[Fixed, list[Configuration]] = {}
    for fixed, members in _families(rows).items():
        known = [row for row in members if row.validation is not None]
        pooled.setdefault(replace(fixed, learning_rate=None), []).extend(known)
    return tuple(
        _trend(_title(fixed, list(pooled)), known) for fixed, known in pooled.items() if len(known) >= FEWEST_CELLS
    )


def _families(rows: Sequence[Configuration]) -> dict[Fixed, list[Configuration]]:
    """Adapter rows that differ only in rank and alpha."""
    families: dict[Fixed, list[Configuration]] = {}
    for row in grid_rows(rows):
        if row.adapter:
            fixed = Fixed(row.model or "", row.learning_rate, row.lr_ratio, replace(row.adapter, rank=1, alpha=1.0))
            families.setdefault(fixed, []).append(row)
    return families


def _title(fixed: Fixed, every: Sequence[Fixed]) -> str:
    parts = [fixed.model] + ([] if fixed.learning_rate is None else [f"lr {fixed.learning_rate:g}"])
    parts += [f"lr ratio {fixed.lr_ratio:g}"] * (len({other.lr_ratio for other in every}) > 1)
    varied = varied_settings([other.settings for other in every])
    return ", ".join(parts + [setting_text(fixed.settings, name) for name in varied])


def _cell(row: Configuration) -> Cell:
    assert row.adapter is not None
    assert row.effective is not None
    assert row.convergence is not None
    test, convergence = row.test, row.convergence
    return Cell(
        rank=row.adapter.rank,
        alpha=row.adapter.alpha,
        effective=row.effective,
        accuracy=test.mean if test else row.validation,
        low=test.low if test else None,
        high=test.high if test else None,
        converged=None if convergence.censored else convergence.step,
        censored=convergence.censored,
        text=convergence.text,
        winner=row.winner,
        tied=row.tied,
    )


def _trend(title: str, known: Sequence[Configuration]) -> Trend:
    accuracy = [row.accuracy for row in known]
    late = [float("inf") if row.convergence.censored else row.convergence.step for row in known if row.convergence]
    alpha, rank = [row.alpha or 0.0 for row in known], [float(row.rank or 0) for row in known]
    effective = [row.effective or 0.0 for row in known]
    return Trend(
        title=title,
        cells=len(known),
        accuracy_alpha=spearman(alpha, accuracy),
        accuracy_rank=spearman(rank, accuracy),
        accuracy_effective=spearman(effective, accuracy),
        late_alpha=spearman(alpha, late),
        late_rank=spearman(rank, late),
        late_effective=spearman(effective, late),
        alpha_is_effective=spearman(alpha, effective),
        equal=_equal_scales(known),
    )


def _equal_scales(rows: Sequence[Configuration]) -> tuple[EqualScale, ...]:
    """Groups of cells with equal learning rate and effective scale and different ranks, the largest groups first."""
    groups: dict[tuple[str, float | None], list[Configuration]] = {}
    for row in rows:
        groups.setdefault((f"{row.effective:.6g}", row.learning_rate), []).append(row)
    several = [group for group in groups.values() if len({row.rank for row in group}) > 1]
    largest = sorted(several, key=len, reverse=True)[:MOST_EQUAL]
    ordered = [sorted(group, key=lambda row: row.rank or 0) for group in largest]
    return tuple(
        EqualScale(g[0].effective or 0.0, tuple(row.name for row in g), tuple(row.accuracy for row in g))
        for g in ordered
    )
