"""What a study advises, and what a reader must know before believing it. Like :mod:`loralet.report.text`, sentences by rule."""

from __future__ import annotations

from loralet.config import StudyConfig
from loralet.report.configurations import Configuration
from loralet.report.record import Record
from loralet.report.statistics import check_error
from loralet.report.text import Facts, accuracy_of, listed, p_value, percent, plural, points

FEW_SEEDS = 3


def recommendations(facts: Facts) -> tuple[str, ...]:
    """Which rank, alpha and learning rate, each with its reason."""
    lora = facts.lora
    if lora is None:
        return ()
    said = [
        _recommend_rank(facts, lora),
        *_recommend_setting(facts, lora, "alpha"),
        *_recommend_setting(facts, lora, "learning_rate"),
    ]
    rivals = [row for row in facts.of("tfidf-svm") if _not_worse(facts, row, lora)]
    if rivals:
        better = facts.best is lora and rivals[0].versus and rivals[0].versus.distinguishable
        than = "better than" if better else "not shown to be worse than"
        said.append(
            f"Before any of this, consider {rivals[0].name}: {percent(accuracy_of(rivals[0]))}, {than} "
            f"{lora.name} ({percent(accuracy_of(lora))}), and no encoder to run."
        )
    return tuple(said)


def _not_worse(facts: Facts, row: Configuration, lora: Configuration) -> bool:
    """Whether the test rows leave it open that a row does as well as LoRA: by the paired test where LoRA is what it was compared with."""
    if row.versus and facts.best is lora:
        return not row.versus.distinguishable or row.versus.difference < 0
    return row.test is not None and lora.test is not None and row.test.high >= lora.test.low


def _equals(facts: Facts, lora: Configuration) -> list[Configuration]:
    """LoRA rows of the winner's model that the test cannot tell from it."""
    return [
        row
        for row in facts.of("lora")
        if row.model == lora.model and (row is lora or (facts.best is lora and row.tied))
    ]


def _recommend_rank(facts: Facts, lora: Configuration) -> str:
    smallest = min(_equals(facts, lora), key=lambda row: (row.rank or 0, -(row.validation or 0.0)))
    if len({row.rank for row in facts.of("lora")}) < 2:
        return f"Rank: {lora.rank} is the only one tried, so there is nothing to prefer."
    if smallest.rank == lora.rank:
        fewer = min(row.rank or 0 for row in facts.of("lora")) < (lora.rank or 0)
        why = (
            "and the test can tell every smaller rank from it"
            if fewer and facts.best is lora
            else "and it is the smallest tried"
        )
        return f"Rank: {lora.rank} ({lora.name}). Validation chose it, {why}."
    saving = percent(1 - smallest.trainable / lora.trainable, 0)
    return (
        f"Rank: {smallest.rank} ({smallest.name}). The smallest that the test cannot tell from the winner {lora.name} "
        f"({percent(accuracy_of(smallest))} against {percent(accuracy_of(lora))}), with {saving} fewer numbers to train; "
        f"where those do not matter, take the winner's rank {lora.rank}."
    )


def _recommend_setting(facts: Facts, lora: Configuration, setting: str) -> list[str]:
    name = "Alpha" if setting == "alpha" else "Learning rate"
    tried = sorted({getattr(row, setting) for row in facts.of("lora")})
    value = getattr(lora, setting)
    if len(tried) == 1:
        hint = (
            "its effect is folded into alpha's here; try a third of it and three times it"
            if setting == "learning_rate"
            else "try others"
        )
        return [f"{name}: {value:g} is the only one tried, so it cannot be judged ({hint})."]
    equals = sorted({getattr(row, setting) for row in _equals(facts, lora)})
    same = f" ({listed([f'{v:g}' for v in equals])} cannot be told apart)" if len(equals) > 1 else ""
    edge = ""
    if value in (tried[0], tried[-1]):
        edge = f" It is the {'smallest' if value == tried[0] else 'largest'} tried, so a better one may lie beyond the grid."
    scale = (
        f"; with rank {lora.rank} and lr {lora.learning_rate:g} the effective scale is {lora.effective:g}"
        if setting == "alpha"
        else ""
    )
    return [f"{name}: {value:g}, as it is the winner's{same}{scale}.{edge}"]


def caveats(facts: Facts) -> tuple[str, ...]:
    """What a reader must know before believing the rest."""
    record, lora = facts.record, facts.of("lora")
    seeds = max((len(row.seeds) for row in lora), default=1)
    said: list[str] = []
    if seeds < 2:
        said.append(
            "Every configuration was run with a single seed: intervals cover the draw of the test rows, not of the training. "
            "Repeat with --seeds 0 1 2."
        )
    elif seeds <= FEW_SEEDS:
        said.append(
            f"{seeds} seeds say little about the spread over seeds; intervals draw seeds and test rows anew, and are still likely too narrow."
        )
    if len({row.rank for row in lora}) > 1 or len({row.alpha for row in lora}) > 1:
        said.append(
            "With alpha/r scaling, a cell of another rank or alpha is also a cell of another step size: the effective scale alpha/r × lr stands "
            "beside each one, and cells are to be compared with it in mind."
        )
    if any(row.tied or row.versus for row in facts.rows):
        methods = listed(sorted({row.versus.method for row in facts.rows if row.versus}))
        said.append(
            f"The winner is compared with every other row but chance on the same test rows ({methods}, Holm-corrected, level 5 %); "
            "“not distinguishable” means that no difference was shown, not that there is none."
        )
    said += _about_baselines(facts) + _about_time(record) + _about_models(facts)
    if facts.chosen != facts.shown:
        said.append(
            f"Commands such as predict use {facts.chosen}, the single best run on validation; the winner above is the best mean over seeds."
        )
    reads = record.results["test_reads"]
    if reads > 1:
        said.append(
            f"The test split was read {reads} times: what was chosen after the first reading may have been chosen on it."
        )
    return tuple(said)


def _about_baselines(facts: Facts) -> list[str]:
    said = []
    if facts.of("random-head"):
        said.append(
            "The random head is chance: a classifier that was never trained on the frozen encoder. It is often called base accuracy."
        )
    plain = [row for role in ("majority", "tfidf-svm") for row in facts.of(role)]
    if facts.best.test and any(row.versus is None for row in plain):
        said.append(
            "Predictions of the baselines without an encoder are not on record, so they are compared by intervals, not by a paired test."
        )
    elif facts.best.test and plain:
        found = [
            f"{row.name} {points(-row.versus.difference)} ({p_value(row.versus.p_holm)})" for row in plain if row.versus
        ]
        against = f"each of the winner's {len(facts.best.seeds)} seeds" if len(facts.best.seeds) > 1 else "the winner"
        said.append(
            f"The baselines without an encoder are one prediction each, set against {against} row by row: {listed(found)}. "
            "Another draw of the training rows would move them too, which no test here sees."
        )
    return said


def _about_time(record: Record) -> list[str]:
    training = record.config.training
    rows = min(training.validation_sample, record.results["data"]["validation_rows"])
    said = [
        f"Convergence is the first check at {percent(training.target_accuracy, 0)} on a fixed sample of "
        f"{rows:,} validation rows; a check is right to about ± {100 * check_error(training.target_accuracy, rows):.0f} points."
    ]
    if isinstance(record.config, StudyConfig):
        said.append(
            "Runs of one model and seed were trained side by side in one pack: its time is shared out evenly among the runs in it, and its peak "
            "memory is that of the whole process, so neither shows what a rank would cost by itself."
        )
    return said


def _about_models(facts: Facts) -> list[str]:
    said = [
        f"{listed(list(model.names))} have equal tensors (equal fingerprints): they are one model under {len(model.names)} names and share its rows."
        for model in facts.models
        if len(model.names) > 1
    ]
    if facts.doubles:
        said.append(f"{plural(len(facts.doubles), 'run')} of equal settings, seed and tensors left out as doubles.")
    return said
