"""The question and the answer of a study, as rule-based sentences that do not depend on the data set."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from loralet.adapters.spec import METHOD_NAMES
from loralet.report.comparisons import choose
from loralet.report.configurations import Configuration, Model, grid_rows
from loralet.report.grids import Trend
from loralet.report.savings import Savings
from loralet.report.wording import NO_BREAK, listed, p_value, percent, points
from loralet.runs.environment import Environment
from loralet.runs.record import Record
from loralet.runs.results import unfinished_text
from loralet.runs.run import HYBRID, Role

STRONG = 0.5
"""Smallest rank correlation reported as a trend (assumed). It is not significant with nine cells; the text says so."""
SIGNIFICANT = {
    3: 2.0,
    4: 2.0,
    5: 1.0,
    6: 0.886,
    7: 0.786,
    8: 0.738,
    9: 0.700,
    10: 0.648,
    12: 0.587,
    16: 0.503,
    20: 0.447,
    30: 0.362,
}
"""Two-sided 5 % critical values of Spearman's coefficient by number of points (Zar 1972); 2.0: never significant."""
SCALE = "the effective scale alpha/r × lr"
LINEAR: dict[Role, str] = {"tfidf-svm": "TF-IDF + SVM", "tfidf-lr": "TF-IDF + logistic regression"}
"""Names of the linear models on words in sentences, by role."""


@dataclass(frozen=True)
class Facts:
    """Input of the sentences.

    Args:
        record: the run folder.
        models: its backbones.
        rows: all configurations.
        best: the winner.
        shown: id of the winner's run whose predictions the report shows.
        chosen: id of the run that commands such as ``predict`` use.
        duplicates: ids of excluded duplicate runs.
        trends: correlations with rank and alpha.
        savings: steps saved by early exits.
    """

    record: Record
    models: tuple[Model, ...]
    rows: tuple[Configuration, ...]
    best: Configuration
    shown: str
    chosen: str
    duplicates: tuple[str, ...]
    trends: tuple[Trend, ...]
    savings: Savings

    def of(self, role: Role) -> list[Configuration]:
        """The configurations of a role."""
        return [row for row in self.rows if row.role == role]

    @property
    def lora(self) -> Configuration | None:
        """The best adapter configuration on validation."""
        return choose(self.of("lora"))

    @property
    def methods(self) -> str:
        """The adapter methods of the study: ``LoRA``, or ``LoRA and DoRA``."""
        used = dict.fromkeys(row.adapter.method for row in self.of("lora") if row.adapter)
        return listed([METHOD_NAMES[method] for method in used])


def command(environment: Environment) -> str:
    """The command that repeats the study, as typed by the user; empty if unknown."""
    if not environment.command:
        return ""
    program, *arguments = environment.command
    if Path(program).name in ("loralet", "__main__.py", "loralet.exe"):
        program = "loralet"
    return shlex.join([program, *arguments])


def question(facts: Facts) -> str:
    """The question of the study, derived from the settings that it varies."""
    models, lora = listed([model.label for model in facts.models]), facts.of("lora")
    subject = f"{'are' if ' and ' in facts.methods else 'is'} {facts.methods}"
    varied = {
        "rank": len({row.rank for row in lora}),
        "alpha": len({row.alpha for row in lora}),
        "learning rate": len({row.learning_rate for row in lora}),
        "learning-rate ratio": len({row.lr_ratio for row in lora}),
    }
    several = [name for name, count in varied.items() if count > 1]
    if not lora:
        return f"How accurate is a classifier on {models}?"
    if not several:
        return f"How accurate {subject} on {models}?"
    verb = "do" if len(several) > 1 else "does"
    effects = "convergence, accuracy and stability"
    return f"How accurate {subject} on {models}, and how {verb} {listed(several)} affect {effects}?"


def answer(facts: Facts) -> tuple[str, ...]:
    """Three sentences: the winner's accuracy, the baselines, and the effect of the settings; first what is missing."""
    record = facts.record
    missing = () if record.results.finished else (f"{unfinished_text(record.folder, record.results)}.",)
    return (*missing, _accuracy(facts), _baselines(facts), _settings(facts))


def split_text(facts: Facts) -> str:
    """The rows that accuracies are measured on."""
    data = facts.record.results.data
    return (
        f"{data.test_rows:,} test rows"
        if facts.record.targets is not None
        else f"{data.held_out_rows:,} {data.held_out} rows"
    )


def _accuracy(facts: Facts) -> str:
    best, rows = facts.best, split_text(facts)
    if best.test is None:
        right = percent(best.validation or 0.0)
        why = "There is no test split." if facts.record.results.finished else "So far:"
        return f"{why} Validation chose {best.name}, which classifies {right} of {rows} correctly."
    details = [f"95{NO_BREAK}% interval {100 * best.test.low:.1f}–{percent(best.test.high)}"]
    if best.test.sd is not None:
        details.append(f"standard deviation {100 * best.test.sd:.2f} points over {len(best.seeds)} seeds")
    tied = [row for row in facts.rows if row.tied and row.role == "lora"]
    if tied:
        others = len(facts.of("lora")) - (best.role == "lora")
        many = f"the {others}" if len(tied) == others else f"{len(tied)} of the {others}"
        which = (
            f"{many} other {facts.methods} configurations" if others > 1 else f"the other {facts.methods} configuration"
        )
        details.append(f"{which} cannot be distinguished from it")
    right = percent(best.test.mean)
    return f"Chosen on validation, {described(best)} classifies {right} of {rows} correctly ({'; '.join(details)})."


def described(row: Configuration) -> str:
    """The description of a configuration, for use in a sentence."""
    rate = f"learning rate {row.learning_rate:g}" if row.learning_rate else ""
    if row.role != "lora" or row.adapter is None:
        return f"{row.name} with {rate}" if rate else row.name
    model = row.name.partition(" · ")[2]
    name = METHOD_NAMES[row.adapter.method]
    rate += f" ({row.lr_ratio:g} times that for B)" if row.lr_ratio not in (None, 1) else ""
    return f"{name} with rank {row.rank}, alpha {row.alpha:g} and {rate}" + (f" on {model}" if model else "")


def _baselines(facts: Facts) -> str:
    best = facts.best
    names: dict[Role, str] = {
        "random-head": "chance (the random head)",
        "linear-probe": "a linear probe",
        "full": "full fine-tuning",
    }
    parts: list[str] = []
    for role, name in names.items():
        rows = (row for row in facts.of(role) if row.model == best.model and row is not best)
        parts += [f"{name} reaches {percent(row.accuracy)}" for row in rows][:1]
    for role, name in LINEAR.items():
        for row in facts.of(role):
            verdict = _against(best, row)
            parts.append(f"a linear model on words ({name}) reaches {percent(row.accuracy)}, {verdict}")
    for row in facts.of(HYBRID):
        figures = f" ({points(-row.versus.difference)}, {p_value(row.versus.p_holm)})" if row.versus else ""
        parts.append(f"the hybrid of a run and a linear model on words reaches {percent(row.accuracy)}{figures}")
    if not parts:
        return "There are no baselines for comparison; loralet study adds them."
    return f"For comparison, {'; '.join(parts)}."


def _against(best: Configuration, row: Configuration) -> str:
    """Comparison of another row with the winner: by the paired test, or by the intervals if predictions are missing."""
    if not (best.test and row.test):
        return "on the same rows"
    name = METHOD_NAMES[best.adapter.method] if best.role == "lora" and best.adapter else ""
    if row.versus:
        figures = f"{points(-row.versus.difference)}, {p_value(row.versus.p_holm)}"
        if row.versus.distinguishable:
            return figures
        gain = f"; no gain from {name} is shown" if name else ""
        return f"which the paired test cannot distinguish from it ({figures}{gain})"
    if best.test.low <= row.test.high and row.test.low <= best.test.high:
        return "with an overlapping interval" + (f", so no gain from {name} is shown" if name else "")
    return "clearly lower" if row.test.mean < best.test.mean else "clearly higher"


def _settings(facts: Facts) -> str:
    lora = grid_rows(facts.rows)
    if len(lora) < 2:
        return "A single configuration does not show the effect of rank and alpha; a grid (loralet study) does."
    low, high = (f(lora, key=lambda row: row.accuracy) for f in (min, max))
    spread = f"ranges from {percent(low.accuracy)} ({low.name}) to {percent(high.accuracy)} ({high.name})"
    if low.accuracy == high.accuracy:
        spread = f"is {percent(low.accuracy)} for all configurations"
    trend = trend_sentence(facts.trends[0]) if facts.trends else "there are too few cells for a trend"
    return f"Over the grid, accuracy {spread}; {trend[0].lower()}{trend[1:]}."


def trend_sentence(trend: Trend) -> str:
    """Correlation of accuracy with rank, and with alpha or the effective scale if that explains as much as alpha."""
    rank = trend.accuracy_rank
    with_rank = ""
    if rank is not None and abs(rank) >= STRONG:
        with_rank = f"{_direction(rank)} with rank ({correlation(rank)}{significance(rank, trend.cells)})"
    with_alpha = _with_alpha(trend)
    if with_alpha:
        return f"Accuracy {with_rank}; it {with_alpha}" if with_rank else f"Accuracy {with_alpha}"
    alpha, effective = correlation(trend.accuracy_alpha), correlation(trend.accuracy_effective)
    rest = f"no trend with alpha ({alpha}) or {SCALE} ({effective})"
    return f"Accuracy {with_rank}, but shows {rest}" if with_rank else f"Accuracy shows {rest}"


def _with_alpha(trend: Trend) -> str:
    """The trend with alpha or the effective scale, whichever is stronger; empty if there is none."""
    alpha, effective = trend.accuracy_alpha or 0.0, trend.accuracy_effective or 0.0
    if max(abs(alpha), abs(effective)) < STRONG:
        return ""
    if abs(effective) < abs(alpha) - 0.1:
        strength = f"{correlation(alpha)}{significance(alpha, trend.cells)}"
        return f"{_direction(alpha)} with alpha ({strength}) more than with {SCALE} ({correlation(effective)})"
    strength, sure = correlation(effective), significance(effective, trend.cells)
    if trend.accuracy_alpha is None or abs(alpha) < STRONG:
        more = f"more than with alpha ({correlation(trend.accuracy_alpha)})"
        return f"{_direction(effective)} with {SCALE} ({strength}{sure}), {more}"
    return (
        f"{_direction(effective)} with {SCALE} ({strength}, against {correlation(alpha)} for alpha alone{sure}), "
        "so the apparent effect of alpha is also an effect of step size"
    )


def significance(rho: float, cells: int) -> str:
    """Empty if the correlation is significant at the 5 % level, else a clause that says it is not."""
    least = SIGNIFICANT[max(n for n in SIGNIFICANT if n <= cells)]
    return "" if abs(rho) >= least else f", not significant with {cells} cells"


def correlation(rho: float | None) -> str:
    """``Spearman +0.90``."""
    return "which does not vary" if rho is None else f"Spearman {rho:+.2f}".replace("-", "−")


def _direction(rho: float) -> str:
    return "rises" if rho > 0 else "falls"
