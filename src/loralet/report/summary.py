"""The facts about a run as name-value pairs, and the key values at the top of the report."""

from __future__ import annotations

from collections.abc import Sequence

from loralet.backends.info import BackendInfo
from loralet.config.training import UNWEIGHTED, TrainingOptions
from loralet.report.analysis import Analysis
from loralet.runs.environment import Environment, SessionBackend

LABELS_NAMED = 8
"""Maximum number of labels listed."""
DIGITS = 16
"""Number of characters of a fingerprint shown."""

Pairs = list[tuple[str, str]]


def backend_lines(backends: Sequence[SessionBackend]) -> tuple[str, ...]:
    """The backends of a study: one line if all models use the same backend, else one line per model.

    Args:
        backends: one per model; empty in run folders written before backends were recorded.
    """
    distinct = dict.fromkeys(backend_text(session.backend) for session in backends)
    if len(distinct) < 2:
        return tuple(distinct)
    return tuple(dict.fromkeys(f"{session.model}: {backend_text(session.backend)}" for session in backends))


def backend_text(backend: BackendInfo) -> str:
    """A backend in one line, such as ``native, AVX-512 BF16, bf16, 2 threads``, with the recorded reason, if any."""
    threads = f"{backend.threads} thread{'s' if backend.threads != 1 else ''}"
    where = threads if backend.device == "cpu" else backend.device
    parts = [backend.name, backend.instructions, backend.dtype, where]
    return ", ".join(part for part in parts if part) + (f" ({backend.reason})" if backend.reason else "")


def facts(analysis: Analysis) -> Pairs:
    """Data, models, training options, backends, machine and versions."""
    environment = analysis.environment
    pairs = [
        *_data(analysis),
        *_models(analysis),
        *_training(analysis),
        *(("Backend", line) for line in backend_lines(environment.backends)),
        ("Machine", _machine(environment)),
        ("Versions", _versions(environment)),
        ("Started", environment.started),
    ]
    return [(name, value) for name, value in pairs if value]


def _data(analysis: Analysis) -> Pairs:
    data = analysis.data
    held_out = f"in {data.folds} folds" if data.folds else f"{data.validation_rows:,} for validation"
    rows = f"{data.train_rows:,} for training, {held_out}, {data.test_rows:,} for testing"
    more = ", …" if len(data.labels) > LABELS_NAMED else ""
    labels = f"{len(data.labels)} labels ({', '.join(data.labels[:LABELS_NAMED])}{more})"
    reads = {0: "never", 1: "once"}.get(analysis.test_reads, f"{analysis.test_reads} times")
    return [
        ("Data", f"{data.source}: {rows}; {labels}"),
        ("Fingerprint", data.fingerprint[:DIGITS]),
        ("Test split", f"read {reads}" + ("" if data.folds else "; all choices were made on validation")),
    ]


def _models(analysis: Analysis) -> Pairs:
    pairs: Pairs = []
    for model in analysis.models:
        fingerprint = f", fingerprint {model.fingerprint[:DIGITS]}" if model.fingerprint else ""
        pairs.append(("Model", f"{' = '.join(model.names)}{fingerprint}"))
    return pairs


def _training(analysis: Analysis) -> Pairs:
    training = analysis.training
    length = training_length(analysis)
    sample = min(training.validation_sample, analysis.data.held_out_rows)
    target = f"target {100 * training.target_score:g} % on {sample:,} {analysis.data.held_out} rows"
    selection = f"{training.select_by.replace('-f1', ' F1')} on validation rows, then lower loss"
    seeds = sorted({seed for row in analysis.configurations for seed in row.seeds})
    return [
        (
            "Training",
            f"{length}, {training.schedule} schedule, warm-up {100 * training.warmup:g} "
            f"%, {_head(training)}, {_truncation(analysis)}",
        ),
        ("Checks", f"every {training.eval_every} steps, {target}"),
        ("Class weights", "" if training.class_weight == UNWEIGHTED else training.class_weight),
        ("Selection", "" if analysis.data.folds else selection),
        ("Seeds", ", ".join(map(str, seeds)) + (" (a single seed)" if len(seeds) == 1 else "")),
    ]


def _head(training: TrainingOptions) -> str:
    return "head chosen for the backbone" if training.head == "auto" else f"{training.head} head"


def _truncation(analysis: Analysis) -> str:
    """The maximum text length of each model, and the share of training texts that are longer."""
    if not analysis.data.lengths:
        return f"texts truncated to {analysis.reading.max_length} tokens"
    rows = analysis.data.train_rows
    found = {
        f"texts truncated to {own.max_length} tokens ({100 * own.truncated / rows:.3g} % of the training texts)"
        if own.truncated
        else f"texts of at most {own.max_length} tokens (none of the training texts is longer)"
        for own in analysis.data.lengths
    }
    return "; ".join(sorted(found))


def training_length(analysis: Analysis) -> str:
    """The planned length of training: steps, rows per step, and passes over the training rows."""
    size, rows = analysis.training.batch_size, analysis.data.train_rows
    steps = max((row.planned // len(row.seeds) for row in analysis.configurations if row.planned), default=0)
    return f"{steps:,} steps of {size} rows ({steps * size / rows:.3g} epochs)"


def _machine(environment: Environment) -> str:
    cores = f", {environment.cores} cores" if environment.cores else ""
    gpu = f", {environment.gpu}" if environment.gpu else ""
    cpu = environment.cpu or "unknown CPU"
    return f"{cpu}{cores}, {environment.threads} threads{gpu}; {environment.platform}"


def _versions(environment: Environment) -> str:
    versions = {
        "loralet": environment.loralet,
        "commit": environment.commit,
        "python": environment.python,
        "torch": environment.torch,
    }
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def headline(analysis: Analysis) -> Pairs:
    """The key values at the top of the report."""
    best = analysis.best
    shown = [("chosen on validation", best.name)]
    if best.test:
        shown.append(("test accuracy", f"{100 * best.test.mean:.1f} %"))
    elif best.validation is not None:
        shown.append((f"{analysis.data.held_out} accuracy", f"{100 * best.validation:.1f} %"))
    shown.append(("trained parameters", f"{best.trainable:,}"))
    if best.convergence:
        shown.append((f"steps to {100 * analysis.training.target_score:g} %", best.convergence.text))
    return shown
