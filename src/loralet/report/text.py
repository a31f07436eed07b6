"""What the numbers of a study say, in sentences. Every sentence follows from a rule below; none is written by hand for a data set."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from loralet.report.configurations import Configuration, Model, choose
from loralet.report.record import Record

STRONG = 0.5
"""Rank correlations from here on are called a trend (assumed; with nine cells, 0.5 is not yet significant, and the sentence says so)."""
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
"""Two-sided 5 % points of Spearman's coefficient by number of points (Zar 1972); 2.0: none reaches it."""
NO_BREAK = "\u00a0"
"""Keeps a number and its unit on one line."""


@dataclass(frozen=True)
class EqualScale:
    """Cells of one grid with the same effective scale but other ranks: what is left of rank when the step is the same."""

    effective: float
    names: tuple[str, ...]
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Trend:
    """Rank correlations (Spearman) over the cells of one grid, None where one side does not vary.

    ``accuracy_*``: with accuracy; ``late_*``: with the convergence step, censored runs last; ``alpha_is_effective``: of alpha with the
    effective scale, which says how far the two can be told apart at all.
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
class HalvingCost:
    """What successive halving may have cost, in accuracies on the validation sample.

    Args:
        gaps: of each run let go, how far it lay below the last that went on at its rung.
        errors: of each, half the 95 % interval of that last one's accuracy: a smaller gap may be chance.
        gains: of each run that went on at a rung, its best check after it less its accuracy there.
        rows: of the validation sample.
    """

    gaps: tuple[float, ...]
    errors: tuple[float, ...]
    gains: tuple[float, ...]
    rows: int


@dataclass(frozen=True)
class Savings:
    """What early exits saved: runs that left early, optimiser steps not taken, about how many seconds that is, and what halving may have cost."""

    runs: int
    stopped: int
    halved: int
    diverged: int
    steps_saved: int
    steps_planned: int
    seconds: float
    cost: HalvingCost | None


@dataclass(frozen=True)
class Facts:
    """What the sentences are made from. ``shown``: the winner's run whose rows are shown; ``chosen``: the run that the commands use."""

    record: Record
    models: tuple[Model, ...]
    rows: tuple[Configuration, ...]
    best: Configuration
    shown: str
    chosen: str
    doubles: tuple[str, ...]
    trends: tuple[Trend, ...]
    savings: Savings

    def of(self, role: str) -> list[Configuration]:
        return [row for row in self.rows if row.role == role]

    @property
    def lora(self) -> Configuration | None:
        return choose(self.of("lora"))


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}{NO_BREAK}%"


def points(difference: float) -> str:
    return f"{signed(100 * difference)} points"


def signed(number: float) -> str:
    """One decimal with its sign; what rounds to nothing has a plus."""
    return f"{round(number, 1) + 0.0:+.1f}".replace("-", "−")


def p_value(p: float) -> str:
    return f"p{NO_BREAK}<{NO_BREAK}0.001" if p < 0.001 else f"p{NO_BREAK}={NO_BREAK}{p:.3f}"


def listed(items: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def equal_scales(rows: Sequence[Configuration]) -> tuple[EqualScale, ...]:
    """The groups of cells that share learning rate and effective scale under several ranks, at most three, the largest first."""
    groups: dict[str, list[Configuration]] = {}
    for row in rows:
        groups.setdefault(f"{row.effective:.6g} {row.learning_rate}", []).append(row)
    values = [
        sorted(group, key=lambda row: row.rank or 0)
        for group in groups.values()
        if len({row.rank for row in group}) > 1
    ]
    values = sorted(values, key=len, reverse=True)[:3]
    return tuple(
        EqualScale(g[0].effective or 0.0, tuple(r.name for r in g), tuple(accuracy_of(r) for r in g)) for g in values
    )


def accuracy_of(row: Configuration) -> float:
    """Test accuracy, or validation accuracy where there is no test split."""
    return row.test.mean if row.test else row.validation or 0.0


def _split(facts: Facts) -> str:
    data = facts.record.results["data"]
    return f"{data['test_rows']:,} test rows" if data["test_rows"] else f"{data['validation_rows']:,} validation rows"


def command(record: Record) -> str:
    """The command that repeats the study, as it was typed."""
    given = list(record.environment.get("command", ()))
    if not given:
        return ""
    program = "loralet" if Path(given[0]).name in ("loralet", "__main__.py", "loralet.exe") else given[0]
    return shlex.join([program, *given[1:]])


def question(facts: Facts) -> str:
    """What was asked, from what was varied."""
    models, lora = listed([model.label for model in facts.models]), facts.of("lora")
    varied: dict[str, set[Any]] = {
        "rank": {row.rank for row in lora}, "alpha": {row.alpha for row in lora}, "learning rate": {row.learning_rate for row in lora},
    }  # fmt: skip
    several = [name for name, values in varied.items() if len(values) > 1]
    how = f"How good does LoRA make {models}"
    if not several:
        return f"{how}?" if lora else f"How good is {models} under a classifier of its own?"
    return f"{how}, and how do {listed(several)} change convergence, accuracy and stability?"


def answer(facts: Facts) -> tuple[str, ...]:
    """Three sentences: how good, against what, and what the settings change."""
    return (_how_good(facts), _against_what(facts), _what_changes(facts))


def _how_good(facts: Facts) -> str:
    best = facts.best
    if best.test is None:
        return f"Validation prefers {best.name}, right on {percent(best.validation or 0.0)} of {_split(facts)}; there is no test split."
    spread = (
        f", standard deviation {100 * best.test.sd:.2f} points over {len(best.seeds)} seeds"
        if best.test.sd is not None
        else ""
    )
    tied = [row for row in facts.rows if row.tied and row.role == "lora"]
    if tied:
        others = len(facts.of("lora")) - (best.role == "lora")
        many = f"the {others}" if len(tied) == others else f"{len(tied)} of the {others}"
        which = f"{many} other LoRA configurations" if others > 1 else "the other LoRA configuration"
        spread += f"; {which} cannot be told apart from it"
    interval = f"95{NO_BREAK}% interval {100 * best.test.low:.1f}–{percent(best.test.high)}"
    return f"Chosen on validation, {described(best)} is right on {percent(best.test.mean)} of {_split(facts)} ({interval}{spread})."


def described(row: Configuration) -> str:
    """A configuration in a sentence."""
    if row.role != "lora":
        return f"{row.name} at learning rate {row.learning_rate:g}" if row.learning_rate else row.name
    model = row.name.partition(" · ")[2]
    settings = f"rank {row.rank}, alpha {row.alpha:g} and learning rate {row.learning_rate:g}"
    return f"LoRA of {settings}" + (f" on {model}" if model else "")


def _against_what(facts: Facts) -> str:
    best = facts.best
    parts = []
    for role, name in (
        ("random-head", "chance (the random head)"),
        ("linear-probe", "a linear probe"),
        ("full", "full fine-tuning"),
    ):
        rows = (row for row in facts.of(role) if row.model == best.model and row is not best)
        parts += [f"{name} reaches {percent(accuracy_of(row))}" for row in rows][:1]
    words_only = facts.of("tfidf-svm")
    if words_only:
        parts.append(
            f"a linear model on words alone (TF-IDF + SVM) {percent(accuracy_of(words_only[0]))}, {_beside(best, words_only[0])}"
        )
    return (
        f"Against that, {'; '.join(parts)}." if parts else "Nothing was run to compare it with; a study adds baselines."
    )


def _beside(best: Configuration, row: Configuration) -> str:
    """How far another row lies from the winner: by the paired test, or where its predictions are not on record by the two intervals."""
    if not (best.test and row.test):
        return "on validation"
    if row.versus:
        if row.versus.distinguishable:
            return f"{points(-row.versus.difference)}, {p_value(row.versus.p_holm)}"
        gain = "; LoRA's gain over it is not shown" if best.role == "lora" else ""
        return f"which the paired test cannot tell from it ({points(-row.versus.difference)}, {p_value(row.versus.p_holm)}{gain})"
    if best.test.low <= row.test.high and row.test.low <= best.test.high:
        return (
            "within the same interval, so LoRA's gain over it is not shown"
            if best.role == "lora"
            else "within the same interval"
        )
    return "clearly less" if row.test.mean < best.test.mean else "clearly more"


def _what_changes(facts: Facts) -> str:
    lora = facts.of("lora")
    if len(lora) < 2:
        return "One configuration says nothing about rank and alpha; a grid (loralet study) does."
    low, high = (f(lora, key=accuracy_of) for f in (min, max))
    spread = f"runs from {percent(accuracy_of(low))} ({low.name}) to {percent(accuracy_of(high))} ({high.name})"
    if accuracy_of(low) == accuracy_of(high):
        spread = f"is {percent(accuracy_of(low))} everywhere"
    said = trend_sentence(facts.trends[0]) if facts.trends else "there are too few cells to speak of a trend"
    return f"Over the grid accuracy {spread}; {said[0].lower()}{said[1:].rstrip('.')}."


def significant(rho: float, cells: int) -> bool:
    return abs(rho) >= SIGNIFICANT[max(n for n in SIGNIFICANT if n <= cells)]


def trend_sentence(trend: Trend) -> str:
    """What accuracy follows: rank, alpha, and whether the effective scale says as much as alpha does."""
    rank = trend.accuracy_rank
    strong = rank is not None and abs(rank) >= STRONG
    with_rank = (
        f"{_way(rank)} with rank ({_rho(rank)}{_sure(rank, trend.cells)})" if rank is not None and strong else ""
    )
    about_alpha = _about_alpha(trend)
    if not about_alpha:
        rest = f"alpha ({_rho(trend.accuracy_alpha)}) or the effective scale alpha/r × lr ({_rho(trend.accuracy_effective)})"
        return f"Accuracy {with_rank}, but does not follow {rest}" if with_rank else f"Accuracy does not follow {rest}"
    return f"Accuracy {with_rank}; it {about_alpha}" if with_rank else f"Accuracy {about_alpha}"


def _about_alpha(trend: Trend) -> str:
    """Empty where accuracy follows neither alpha nor the effective scale."""
    alpha, effective = trend.accuracy_alpha or 0.0, trend.accuracy_effective or 0.0
    if max(abs(alpha), abs(effective)) < STRONG:
        return ""
    if abs(effective) >= abs(alpha) - 0.1:
        sure = _sure(effective, trend.cells)
        if trend.accuracy_alpha is None or abs(alpha) < STRONG:
            more = f"more than with alpha ({_rho(trend.accuracy_alpha)})"
            return f"{_way(effective)} with the effective scale alpha/r × lr ({_rho(effective)}{sure}), {more}"
        versus = f"{_rho(effective)}, against {_rho(alpha)} for alpha alone{sure}"
        return f"{_way(effective)} with the effective scale alpha/r × lr ({versus}), so what looks like alpha is also step size"
    return f"{_way(alpha)} with alpha ({_rho(alpha)}{_sure(alpha, trend.cells)}) more than with the effective scale alpha/r × lr ({_rho(effective)})"


def _sure(rho: float, cells: int) -> str:
    return "" if significant(rho, cells) else f", which {cells} cells cannot tell from chance"


def _way(rho: float) -> str:
    return "rises" if rho > 0 else "falls"


def _rho(rho: float | None) -> str:
    return "it does not vary" if rho is None else f"Spearman {rho:+.2f}".replace("-", "−")


def findings(facts: Facts) -> tuple[str, ...]:
    """What the grid shows, one sentence each."""
    said = [_convergence(facts), _stability(facts)]
    for trend in facts.trends:
        where = f" [{trend.title}]" if len(facts.trends) > 1 else ""
        said.append(f"{trend_sentence(trend)}{where}.")
        said.append(_late(trend) + where + "." if trend.late_effective is not None else "")
        for equal in trend.equal:
            pairs = listed([f"{name} {percent(a)}" for name, a in zip(equal.names, equal.accuracies, strict=True)])
            gap = max(equal.accuracies) - min(equal.accuracies)
            said.append(
                f"At one and the same effective scale ({equal.effective:g}) the ranks give {pairs}: {points(gap)[1:]} between them{where}."
            )
    said += [_saved(facts.savings), _parameters(facts)]
    return tuple(sentence for sentence in said if sentence)


def _convergence(facts: Facts) -> str:
    lora = [row for row in facts.of("lora") if row.convergence]
    target = percent(facts.record.config.training.target_accuracy, 0)
    done = [row for row in lora if row.convergence and not row.convergence.censored]
    done.sort(key=lambda row: row.convergence.step if row.convergence else 0)
    never = [f"{row.name} ({row.convergence.text})" for row in lora if row.convergence and row.convergence.censored]
    if not lora:
        return ""
    if not done:
        return (
            f"No LoRA configuration reached {target} on the validation sample within its steps ({listed(never[:6])})."
        )
    first, last = done[0].convergence, done[-1].convergence
    assert first is not None
    assert last is not None
    every = facts.record.config.training.eval_every
    fastest = listed([row.name for row in done if row.convergence and row.convergence.step == first.step][:6])
    some = f" Not reached by {listed(never[:6])}." if never else ""
    span = (
        f"between step {first.text} ({fastest}) and step {last.text}"
        if last.step > first.step
        else f"at step {first.text}, all of them"
    )
    return f"{target} on the validation sample is first reached {span}; checks are {every} steps apart, so finer differences do not show.{some}"


def _stability(facts: Facts) -> str:
    lora = facts.of("lora")
    if not lora:
        return ""
    diverged = [f"{row.name} ({percent(row.diverged, 0)} of its seeds)" for row in lora if row.diverged]
    spiky = [f"{row.name} ({row.spikes:.2g})" for row in sorted(lora, key=lambda row: -(row.spikes or 0)) if row.spikes]
    spreads = [(row.test.sd, row) for row in lora if row.test and row.test.sd is not None]
    parts = [f"diverged: {listed(diverged)}" if diverged else "no run diverged"]
    parts.append(f"loss spikes a run: {listed(spiky[:4])}" if spiky else "no loss spikes")
    if spreads:
        widest, row = max(spreads, key=lambda pair: pair[0])
        parts.append(f"the widest standard deviation over seeds is {100 * widest:.2f} points ({row.name})")
    return f"Stability: {'; '.join(parts)}."


def _late(trend: Trend) -> str:
    """What the step of convergence follows."""
    causes = {
        "larger effective scale": trend.late_effective,
        "higher rank": trend.late_rank,
        "larger alpha": trend.late_alpha,
    }
    strong = {name: rho for name, rho in causes.items() if rho is not None and abs(rho) >= STRONG}
    if not strong:
        rest = listed([f"{name.split(' ', 1)[1]} ({_rho(rho)})" for name, rho in causes.items()])
        return f"The step of convergence follows none of {rest}"
    said = [
        f"a {name} converges {'later' if rho > 0 else 'sooner'} ({_rho(rho)}{_sure(rho, trend.cells)})"
        for name, rho in strong.items()
    ]
    return listed(said)[0].upper() + listed(said)[1:]


def _saved(savings: Savings) -> str:
    if not savings.steps_saved:
        return ""
    ways = {
        "stopped early": savings.stopped,
        "left at a rung of successive halving": savings.halved,
        "diverged": savings.diverged,
    }
    who = listed([f"{count} {way}" for way, count in ways.items() if count])
    share = percent(savings.steps_saved / savings.steps_planned, 0)
    cost = " What a run that stopped would have gained later is not known." if savings.stopped else ""
    cost += f" {_halving_cost(savings.cost)}" if savings.cost else ""
    saved = (
        f"saving {savings.steps_saved:,} of {savings.steps_planned:,} steps ({share}, about {savings.seconds:.0f} s)"
    )
    return f"Of {plural(savings.runs, 'run')}, {who}, {saved}.{cost}"


def _halving_cost(cost: HalvingCost) -> str:
    """How far off the runs let go were, against what a check can tell, and what those that went on still gained."""
    low, middle, high = (f"{100 * f(cost.gaps):.1f}" for f in (min, median, max))
    gaps = f"{low} to {high} points (median {middle})" if low != high else f"{low} points"
    close = sum(gap <= error for gap, error in zip(cost.gaps, cost.errors, strict=True))
    chance = "all of them" if close == len(cost.gaps) > 1 else f"{close} of {len(cost.gaps)}"
    order = f"for {chance} the order may be chance" if close else "more than chance explains"
    gained = (
        f" Runs that went on gained {points(median(cost.gains))[1:]} (median) from a rung to their best check after it."
        if cost.gains
        else ""
    )
    return (
        f"What halving may have cost: the runs let go lay {gaps} below the last that went on; a check on {cost.rows:,} rows is right to about "
        f"± {100 * median(cost.errors):.1f} points, so {order}.{gained}"
    )


def _parameters(facts: Facts) -> str:
    lora = facts.lora
    if lora is None:
        return ""
    share = percent(lora.trainable / lora.total, 2)
    size = f" and weighs {lora.bytes / 1024:,.3g} KiB on disk" if lora.bytes else ""
    wrong = [row.name for row in facts.of("lora") if row.counted is False]
    agree = f"the count on record, the file's and rank × (inputs + outputs) + head {'disagree for ' + listed(wrong) if wrong else 'agree'}"
    return f"{lora.name} trains {lora.trainable:,} numbers, {share} of the model,{size}; {agree}."
