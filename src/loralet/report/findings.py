"""Sentences about what a grid shows."""

from __future__ import annotations

from statistics import median

from loralet.report.grids import EqualScale, Trend
from loralet.report.savings import HalvingCost, Savings
from loralet.report.text import STRONG, Facts, correlation, significance, trend_sentence
from loralet.report.wording import listed, percent, plural, points

NAMED = 6
"""Maximum number of configurations named in a sentence."""


def findings(facts: Facts) -> tuple[str, ...]:
    """Convergence, stability, trends, savings and size."""
    sentences = [_convergence(facts), _stability(facts)]
    for trend in facts.trends:
        where = f" [{trend.title}]" if len(facts.trends) > 1 else ""
        sentences.append(f"{trend_sentence(trend)}{where}.")
        sentences += [f"{_convergence_trend(trend)}{where}."] * (trend.late_effective is not None)
        sentences += [f"{_equal_scale(equal)}{where}." for equal in trend.equal]
    sentences += [_savings(facts.savings), _parameters(facts)]
    return tuple(sentence for sentence in sentences if sentence)


def _convergence(facts: Facts) -> str:
    found = [(row, row.convergence) for row in facts.of("lora") if row.convergence]
    if not found:
        return ""
    training = facts.record.config.training
    target, sample = percent(training.target_score, 0), f"{facts.record.results.data.held_out} sample"
    done = sorted(((c, row.name) for row, c in found if not c.censored), key=lambda pair: pair[0].step)
    never = listed([f"{row.name} ({c.text})" for row, c in found if c.censored][:NAMED])
    if not done:
        return f"No {facts.methods} configuration reached {target} on the {sample} within its steps ({never})."
    first, last = done[0][0], done[-1][0]
    fastest = listed([name for c, name in done if c.step == first.step][:NAMED])
    span = f"between step {first.text} ({fastest}) and step {last.text}"
    if last.step == first.step:
        span = f"all at step {first.text}"
    rest = f" Not reached by {never}." if never else ""
    return (
        f"{facts.methods} configurations first reach {target} on the {sample} {span}; checks are "
        f"{training.eval_every} steps apart, so smaller differences are not visible.{rest}"
    )


def _stability(facts: Facts) -> str:
    lora = facts.of("lora")
    if not lora:
        return ""
    diverged = [f"{row.name} ({percent(row.diverged, 0)} of its seeds)" for row in lora if row.diverged]
    spiky = [f"{row.name} ({row.spikes:.2g})" for row in sorted(lora, key=lambda row: -(row.spikes or 0)) if row.spikes]
    parts = [f"diverged: {listed(diverged)}" if diverged else "no run diverged"]
    parts.append(f"loss spikes per run: {listed(spiky[:4])}" if spiky else "no loss spikes")
    spreads = [(row.test.sd, row.name) for row in lora if row.test and row.test.sd is not None]
    if spreads:
        widest, name = max(spreads, key=lambda pair: pair[0])
        parts.append(f"the largest standard deviation over seeds is {100 * widest:.2f} points ({name})")
    return f"Stability: {'; '.join(parts)}."


def _convergence_trend(trend: Trend) -> str:
    causes = {
        "larger effective scale": trend.late_effective,
        "higher rank": trend.late_rank,
        "larger alpha": trend.late_alpha,
    }
    strong = {name: rho for name, rho in causes.items() if rho is not None and abs(rho) >= STRONG}
    if not strong:
        rest = [f"{name.split(' ', 1)[1]} ({correlation(rho)})" for name, rho in causes.items()]
        return f"The convergence step shows no trend with {', '.join(rest[:-1])} or {rest[-1]}"
    parts = [
        f"{'later' if rho > 0 else 'earlier'} with a {name} ({correlation(rho)}{significance(rho, trend.cells)})"
        for name, rho in strong.items()
    ]
    return f"Runs converge {listed(parts)}"


def _equal_scale(equal: EqualScale) -> str:
    pairs = [f"{percent(a)} for {name}" for name, a in zip(equal.names, equal.accuracies, strict=True)]
    gap = points(max(equal.accuracies) - min(equal.accuracies))[1:]
    return f"At the same effective scale ({equal.effective:g}), accuracy is {listed(pairs)}: a difference of {gap}"


def _savings(savings: Savings) -> str:
    if not savings.steps_saved:
        return ""
    reasons = {
        "stopped early": savings.stopped,
        "left at a rung of successive halving": savings.halved,
        "diverged": savings.diverged,
    }
    who = listed([f"{count} {reason}" for reason, count in reasons.items() if count])
    share = percent(savings.steps_saved / savings.steps_planned, 0)
    cost = " It is not known how much the stopped runs would still have gained." if savings.stopped else ""
    cost += f" {_halving_cost(savings.cost)}" if savings.cost else ""
    return (
        f"Of {plural(savings.runs, 'run')}, {who}, which saved {savings.steps_saved:,} of {savings.steps_planned:,} "
        f"steps ({share}, about {savings.seconds:.0f} s).{cost}"
    )


def _halving_cost(cost: HalvingCost) -> str:
    """The gaps of the halved runs, the error of a check, and what the runs that continued still gained."""
    low, middle, high = (f"{100 * f(cost.gaps):.1f}" for f in (min, median, max))
    gaps = f"{low} to {high} points (median {middle})" if low != high else f"{low} points"
    close = sum(gap <= error for gap, error in zip(cost.gaps, cost.errors, strict=True))
    many = "all of them" if close == len(cost.gaps) > 1 else f"{close} of {len(cost.gaps)}"
    order = f"for {many} the order may be due to chance" if close else "chance does not explain the order"
    gained = ""
    if cost.gains:
        gained = (
            f" Runs that continued gained {points(median(cost.gains))[1:]} (median) between a rung and their best "
            "later check."
        )
    return (
        f"Possible cost of halving: the runs that left were {gaps} below the last run that continued; the error of a "
        f"check on {cost.rows:,} rows is about ± {100 * median(cost.errors):.1f} points, so {order}.{gained}"
    )


def _parameters(facts: Facts) -> str:
    lora = facts.lora
    if lora is None:
        return ""
    share = percent(lora.trainable / lora.total, 2)
    size = f" and takes {lora.bytes / 1024:,.3g} KiB on disk" if lora.bytes else ""
    wrong = [row.name for row in facts.of("lora") if row.counted is False]
    sources = "results, file and the formula rank × (inputs + outputs) + head"
    verdict = f"{sources} disagree on the number for {listed(wrong)}" if wrong else f"{sources} agree on the number"
    return f"{lora.name} trains {lora.trainable:,} parameters ({share} of the model){size}; {verdict}."
