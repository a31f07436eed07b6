"""Recommendations and limitations of a study, as rule-based sentences like those of :mod:`loralet.report.text`."""

from __future__ import annotations

from loralet.report.configurations import Configuration
from loralet.report.statistics import check_error
from loralet.report.text import LINEAR, SCALE, Facts
from loralet.report.wording import capitalised, listed, p_value, percent, plural, points
from loralet.runs.record import Record
from loralet.runs.run import HYBRID

FEW_SEEDS = 3
"""With at most this many seeds, an interval over seeds is too narrow."""


def recommendations(facts: Facts) -> tuple[str, ...]:
    """Recommended rank, alpha and learning rate with reasons, and a baseline that is not worse, if any."""
    lora = facts.lora
    if lora is None:
        return ()
    rows = facts.of("lora")
    alphas = {row.alpha for row in rows if row.alpha is not None}
    rates = {row.learning_rate for row in rows if row.learning_rate is not None}
    ratios = {row.lr_ratio for row in rows if row.lr_ratio is not None}
    return (
        _rank(facts, lora),
        *([_alpha(facts, lora, lora.alpha, alphas)] if lora.alpha is not None else []),
        *([_rate(facts, lora, lora.learning_rate, rates)] if lora.learning_rate is not None else []),
        *([_ratio(facts, lora, lora.lr_ratio, ratios)] if lora.lr_ratio is not None and len(ratios) > 1 else []),
        *_baseline(facts, lora),
    )


def _baseline(facts: Facts, lora: Configuration) -> list[str]:
    rivals = [row for role in LINEAR for row in facts.of(role) if _not_worse(facts, row, lora)]
    if not rivals:
        return []
    row = rivals[0]
    better = facts.best is lora and row.versus and row.versus.distinguishable
    than = "higher than" if better else "not shown to be lower than"
    return [
        f"First consider {row.name}: its accuracy is {percent(row.accuracy)}, {than} that of {lora.name} "
        f"({percent(lora.accuracy)}), and it needs no encoder."
    ]


def _not_worse(facts: Facts, row: Configuration, lora: Configuration) -> bool:
    """Whether the test rows do not show that a row is worse than LoRA.

    Uses the paired test if LoRA is the winner, otherwise the intervals.
    """
    if row.versus and facts.best is lora:
        return not row.versus.distinguishable or row.versus.difference < 0
    return row.test is not None and lora.test is not None and row.test.high >= lora.test.low


def _equals(facts: Facts, lora: Configuration) -> list[Configuration]:
    """LoRA configurations of the same model that the test cannot distinguish from this one, including itself."""
    rows = [row for row in facts.of("lora") if row.model == lora.model]
    return [row for row in rows if row is lora or (facts.best is lora and row.tied)]


def _rank(facts: Facts, lora: Configuration) -> str:
    ranks = {row.rank for row in facts.of("lora")}
    if len(ranks) < 2:
        return f"Rank: {lora.rank} is the only one tried, so ranks cannot be compared."
    smallest = min(_equals(facts, lora), key=lambda row: (row.rank or 0, -(row.validation or 0.0)))
    if smallest.rank == lora.rank:
        reason = ", and the test distinguishes every smaller rank from it" if facts.best is lora else ""
        if lora.rank == min(rank or 0 for rank in ranks):
            reason = ", and it is the smallest tried"
        return f"Rank: {lora.rank} ({lora.name}). Validation chose it{reason}."
    saving = percent(1 - smallest.trainable / lora.trainable, 0)
    return (
        f"Rank: {smallest.rank} ({smallest.name}). It is the smallest rank that the test cannot distinguish from the "
        f"winner {lora.name} ({percent(smallest.accuracy)} against {percent(lora.accuracy)}), and it trains {saving} "
        f"fewer parameters. If the number of parameters does not matter, use the winner's rank {lora.rank}."
    )


def _alpha(facts: Facts, lora: Configuration, value: float, tried: set[float]) -> str:
    if len(tried) == 1:
        return f"Alpha: {value:g} is the only one tried, so it cannot be judged (try others)."
    equals = {row.alpha for row in _equals(facts, lora) if row.alpha is not None}
    scale = f"; with rank {lora.rank} and lr {lora.learning_rate:g} the effective scale is {lora.effective:g}"
    return f"Alpha: {value:g}, as in {lora.name}{_same(equals)}{scale}.{_edge(value, tried)}"


def _rate(facts: Facts, lora: Configuration, value: float, tried: set[float]) -> str:
    if len(tried) == 1:
        hint = "its effect cannot be separated from that of alpha here; try a third of it and three times it"
        return f"Learning rate: {value:g} is the only one tried, so it cannot be judged ({hint})."
    equals = {row.learning_rate for row in _equals(facts, lora) if row.learning_rate is not None}
    return f"Learning rate: {value:g}, as in {lora.name}{_same(equals)}.{_edge(value, tried)}"


def _ratio(facts: Facts, lora: Configuration, value: float, tried: set[float]) -> str:
    equals = {row.lr_ratio for row in _equals(facts, lora) if row.lr_ratio is not None}
    return f"Learning-rate ratio of B to A: {value:g}, as in {lora.name}{_same(equals)}.{_edge(value, tried)}"


def _same(values: set[float]) -> str:
    return f" ({listed([f'{v:g}' for v in sorted(values)])} cannot be distinguished)" if len(values) > 1 else ""


def _edge(value: float, tried: set[float]) -> str:
    """A hint if the value is at an end of the grid."""
    if value not in (min(tried), max(tried)):
        return ""
    which = "smallest" if value == min(tried) else "largest"
    return f" It is the {which} tried, so a better value may lie outside the grid."


def caveats(facts: Facts) -> tuple[str, ...]:
    """Limitations of the results."""
    return (
        *_about_seeds(facts),
        *_about_comparisons(facts),
        *_about_baselines(facts),
        *_about_time(facts.record),
        *_about_models(facts),
        *_about_choice(facts),
    )


def _about_seeds(facts: Facts) -> list[str]:
    seeds = max((len(row.seeds) for row in facts.of("lora")), default=1)
    if seeds < 2:
        return [
            "Every configuration was trained with a single seed: the intervals cover the sampling of test rows, not "
            "the variation between trainings. Repeat with --seeds 0 1 2."
        ]
    if seeds <= FEW_SEEDS:
        return [
            f"{seeds} seeds give little information about the variation between seeds. The intervals resample seeds "
            "and test rows, and are probably still too narrow."
        ]
    return []


def _about_comparisons(facts: Facts) -> list[str]:
    lora, sentences = facts.of("lora"), list[str]()
    if len({row.rank for row in lora}) > 1 or len({row.alpha for row in lora}) > 1:
        sentences.append(
            "With alpha/r scaling, changing rank or alpha also changes the step size. "
            f"{capitalised(SCALE)} is given for each cell; take it into account when comparing cells."
        )
    methods = sorted({row.versus.method for row in facts.rows if row.versus})
    if methods:
        sentences.append(
            "The winner is compared with every other row except chance on the same test rows "
            f"({listed(methods)}, Holm-corrected, level 5 %). “Not distinguishable” means that no difference was "
            "shown, not that there is none."
        )
    return sentences


def _about_baselines(facts: Facts) -> list[str]:
    sentences: list[str] = []
    if facts.of("random-head"):
        sentences.append(
            "The random head measures chance: an untrained classifier on the frozen encoder. Its accuracy is often "
            "called base accuracy."
        )
    plain = [row for row in facts.rows if row.model is None]
    if not facts.best.test or not plain:
        return sentences
    found = [
        f"{row.name} {points(-row.versus.difference)} ({p_value(row.versus.p_holm)})" for row in plain if row.versus
    ]
    if len(found) < len(plain):
        sentences.append(
            "Predictions of the baselines without an encoder are not recorded, so they are compared by intervals, not "
            "by a paired test."
        )
    else:
        several = len(facts.best.seeds)
        against = f"each of the winner's {several} seeds" if several > 1 else "the winner"
        sentences.append(
            f"The baselines without an encoder have no seeds; they are compared row by row with {against}: "
            f"{listed(found)}. Their variation over samples of training rows is not tested here."
        )
    return sentences


def _about_time(record: Record) -> list[str]:
    training = record.config.training
    data = record.results.data
    rows = min(training.validation_sample, data.held_out_rows)
    error = 100 * check_error(training.target_score, rows)
    return [
        f"Convergence is the first check at {percent(training.target_score, 0)} on a fixed sample of {rows:,} "
        f"{data.held_out} rows. The error of a check is about ± {error:.0f} points.",
        "Runs of one model and seed were trained in one pack. Its time is divided equally among its runs, and the "
        "peak memory is that of the whole process. Neither shows the cost of a single rank.",
    ]


def _about_models(facts: Facts) -> list[str]:
    sentences = [
        f"{listed(list(model.names))} have equal tensors (equal fingerprints). They are treated as one model."
        for model in facts.models
        if len(model.names) > 1
    ]
    if facts.duplicates:
        count = plural(len(facts.duplicates), "run")
        sentences.append(f"Excluded as duplicates (equal settings, seed and tensors): {count}.")
    return sentences


def _about_choice(facts: Facts) -> list[str]:
    sentences: list[str] = []
    if facts.of(HYBRID):
        sentences.append(
            f"Commands such as predict use {facts.chosen}, the best single run on validation combined with a linear "
            "model on words. The winner above is chosen among runs without it."
        )
    elif facts.chosen != facts.shown:
        sentences.append(
            f"Commands such as predict use {facts.chosen}, the best single run on validation. The winner above has the "
            "best mean over seeds."
        )
    reads = facts.record.results.test_reads
    if reads > 1:
        sentences.append(
            f"The test split was read {reads} times. Choices made after the first read may depend on test rows."
        )
    return sentences
