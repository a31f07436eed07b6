"""Claim a run folder for training: a new one, or that of an interrupted run, which is then continued."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

from loralet import __version__
from loralet.atomic import remove_temporaries
from loralet.config.toml import options_text, parse_options
from loralet.cpu import cpu_model
from loralet.data.sources import Dataset, fingerprint_splits
from loralet.errors import ConfigError, DataError, RunError
from loralet.records import plain, read_record, require_files
from loralet.runs.checkpoints import FOLDER, Checkpoints, Saved
from loralet.runs.environment import SessionBackend
from loralet.runs.lock import ON_WINDOWS, locked
from loralet.runs.results import NAME as RESULTS
from loralet.runs.results import is_finished
from loralet.runs.sources import KINDS
from loralet.runs.sources import RunOptions as Options

TEACHERS = "teachers"
"""Folder in the run folder of a taught run with the run folders of its teachers."""
RECORD = "run"
"""Name of the record of the origin."""
FREE = ("out", "checkpoint_every")
"""Options that may change on resume, and the groups of :data:`FREE_GROUP`."""
FREE_GROUP = "compute"


@dataclass(frozen=True)
class SplitHash:
    """A part of the data: its source, as named in messages, and the hash of its texts and labels."""

    source: str
    sha256: str


@dataclass(frozen=True)
class ModelHash:
    """A backbone: its name, and the hash of its tensors."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Origin:
    """What a run began with. The same values, on the same machine, give the same results bit for bit.

    Args:
        kind: one of :data:`loralet.runs.sources.KINDS`.
        config: the options, as in config.toml.
        fingerprint: hash of all texts and labels.
        splits: hash of the training split, of the validation split if the data have one, of the class weights, and of
            other inputs.
        models: the backbones.
        packs: ids of the runs of each pack.
        memory: memory limit of a forward pass in bytes.
        cpu, backends: what computed it.
        directory: the current folder, to which relative paths of the options refer.
        report: whether a report was requested.
        loralet: version.
    """

    kind: str
    config: str
    fingerprint: str
    splits: tuple[SplitHash, ...]
    models: tuple[ModelHash, ...]
    packs: tuple[tuple[str, ...], ...]
    memory: int
    cpu: str
    backends: tuple[SessionBackend, ...]
    directory: str
    report: bool = False
    loralet: str = __version__

    @property
    def key(self) -> str:
        """Hash of what determines the results up to rounding: options, data, backbones and packs."""
        fixed = comparable(parse_options(self.config, KINDS[self.kind], "config.toml"))
        parts = [
            fixed,
            self.fingerprint,
            [split.sha256 for split in self.splits],
            [plain(model) for model in self.models],
            self.packs,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def options(self) -> Options:
        """The options."""
        return parse_options(self.config, KINDS[self.kind], "config.toml")


def origin_of(
    kind: str,
    options: Options,
    dataset: Dataset,
    class_weights: tuple[float, ...] | None,
    models: Mapping[str, str],
    packs: tuple[tuple[str, ...], ...],
    memory: int,
    backends: tuple[SessionBackend, ...],
    report: bool,
    others: tuple[SplitHash, ...] = (),
) -> Origin:
    """The origin of a run that this process begins.

    Args:
        kind, packs, memory, backends, report: as in :class:`Origin`.
        options: the options.
        dataset: the data; the test split is only hashed.
        class_weights: weights of the labels; None: all 1.
        models: hash of each backbone, by name.
        others: hashes of other inputs.
    """
    splits = [split for split in (dataset.train, dataset.validation) if split is not None]
    hashes = [SplitHash(split.source, fingerprint_splits([split])) for split in splits]
    weights = hashlib.sha256(repr(class_weights).encode()).hexdigest()
    return Origin(
        kind=kind,
        config=options_text(options),
        fingerprint=dataset.fingerprint,
        splits=(*hashes, SplitHash("the file of --class-weight", weights), *others),
        models=tuple(ModelHash(name, sha256) for name, sha256 in models.items()),
        packs=packs,
        memory=memory,
        cpu=cpu_model(),
        backends=backends,
        directory=str(Path.cwd()),
        report=report,
    )


def comparable(options: Options) -> dict[str, object]:
    """The options that must not change on resume, by name."""
    flat: dict[str, object] = {}

    def add(values: Mapping[str, object]) -> None:
        for name, value in values.items():
            if isinstance(value, Mapping):
                add(value)
            else:
                flat[name] = value

    add({name: value for name, value in plain(options).items() if name not in (*FREE, FREE_GROUP)})
    return flat


def require_same_options(folder: Path, origin: Origin, kind: str, options: Options) -> None:
    """Check that a command may continue a run.

    Raises:
        ConfigError: another command, or changed options; the message lists them.
    """
    if kind != origin.kind:
        raise ConfigError(
            f"{folder} holds an unfinished {origin.kind}: `loralet resume {folder}` continues it; "
            f"give another folder with --out for this {kind}"
        )
    changed = changed_options(origin.options(), options)
    if changed:
        raise ConfigError.listing(
            [f"{change}: options cannot change on resume" for change in changed],
            f"{folder} holds an unfinished {kind}; `loralet resume {folder}` continues it with its own options, "
            "and --out with another folder starts anew",
        )


def changed_options(before: Options, now: Options) -> list[str]:
    """One text for each option that must not change and has; both are options of the same kind."""
    old, new = comparable(before), comparable(now)
    return [f"{name} is {_shown(new[name])}, it was {_shown(old[name])}" for name in new if new[name] != old[name]]


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "empty"
    return "not set" if value is None else repr(value)


def require_same_inputs(folder: Path, before: Origin, now: Origin) -> None:
    """Check that data and backbones are those that the run began with.

    Raises:
        DataError: a file of the data has changed.
        RunError: a backbone has changed.
    """
    remedy = "restore it, or start anew with another folder for --out"
    known = {split.sha256 for split in before.splits}
    changed = [split.source for split in now.splits if split.sha256 not in known]
    if not changed and before.fingerprint != now.fingerprint:
        changed = ["the validation split" if len(before.splits) != len(now.splits) else "the test split"]
    if changed:
        raise DataError(f"{', '.join(changed)}: changed since the run in {folder} began; {remedy}")
    names = {model.name: model.sha256 for model in before.models}
    for model in now.models:
        if names.get(model.name, model.sha256) != model.sha256:
            raise RunError(f"{model.name}: this model has changed since the run in {folder} began; {remedy}")


@dataclass(frozen=True)
class Claim:
    """A run folder that only this process may write.

    Args:
        folder: the folder.
        checkpoints: its checkpoints.
        origin: what the run that is continued began with; None for a new run.
        notes: what is damaged, as lines for the user.
    """

    folder: Path
    checkpoints: Checkpoints
    origin: Origin | None
    notes: tuple[str, ...] = ()

    @property
    def recorded(self) -> bool:
        """Whether the options are recorded, so that ``loralet resume`` can begin."""
        return self.checkpoints.exists(RECORD)

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint of a pack."""
        return any(self.checkpoints.folder.glob("pack-*.json"))


@contextmanager
def claim(out: str, kind: str) -> Iterator[Claim]:
    """Claim a run folder inside the block: ``out``, or a new folder under ``runs/`` named by date.

    When the block ends and the run is finished, its checkpoints are deleted. A folder into which nothing was written is
    deleted too.

    Raises:
        RunError: another process trains into it, it holds a finished run or other files, or a parent is a file.
    """
    wanted = claimable(Path(out)) if out else Path("runs")
    created = [path for path in (wanted, *wanted.parents) if not path.exists()]
    folder = wanted if out else by_date(wanted, kind)
    created = created if out else [folder, *created]
    checkpoints = Checkpoints(folder / FOLDER)
    checkpoints.folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(checkpoints.lock, folder):
            if out:
                claimable(folder)  # it may have been finished while this process looked at it
            remove_temporaries(folder)
            remove_temporaries(folder / "adapters")
            checkpoints.clean()
            try:
                yield Claim(folder, checkpoints, *_origin(folder, checkpoints))
            finally:
                if is_finished(folder) or _is_empty(folder):
                    shutil.rmtree(checkpoints.folder, ignore_errors=ON_WINDOWS)
    finally:
        if ON_WINDOWS and not any(checkpoints.folder.glob("*.json")):
            shutil.rmtree(checkpoints.folder, ignore_errors=True)
        for path in created:
            if path.exists() and not any(path.iterdir()):
                path.rmdir()


def by_date(within: Path, kind: str) -> Path:
    """A new folder named by date. Of two processes that start in the same second, each gets its own."""
    name = f"{kind}-{datetime.now():%Y%m%d-%H%M%S}"
    names = (name if i == 1 else f"{name}-{i}" for i in count(1))
    return next(folder for folder in map(within.joinpath, names) if _is_new(folder))


def _is_new(folder: Path) -> bool:
    """Make a folder; returns whether it did not exist."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def require_run_files(folder: Path) -> None:
    """Check that a run folder and its checkpoints have no named pipes and the like.

    Raises:
        RunError: they have.
    """
    for place in (folder, folder / FOLDER):
        require_files(place)


def claimable(folder: Path) -> Path:
    """The folder, if a training may write into it.

    Raises:
        RunError: see :func:`claim`.
    """
    require_run_files(folder)
    if folder.is_dir() and is_finished(folder):
        raise RunError(f"{folder} exists and is not empty: it holds a finished run; give another folder with --out")
    if folder.exists() and not (folder.is_dir() and (Checkpoints(folder / FOLDER).present() or _is_empty(folder))):
        raise RunError(f"{folder} exists and is not empty; {_remedy(folder)}")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir():
        raise RunError(f"{folder} cannot be created: {above} is a file; give another folder with --out")
    return folder


def _remedy(folder: Path) -> str:
    if (folder / "config.toml").exists() and not (folder / RESULTS).exists():
        return "it holds an unfinished run without checkpoints, which cannot be continued: give another one with --out"
    return "give another folder with --out, or remove it"


def _is_empty(folder: Path) -> bool:
    """Whether a folder has nothing but a checkpoint folder without records, and teachers."""
    others = [path for path in folder.iterdir() if path.name not in (FOLDER, TEACHERS)]
    return not others and not any((folder / FOLDER).glob("*.json"))


def _origin(folder: Path, checkpoints: Checkpoints) -> tuple[Origin | None, tuple[str, ...]]:
    try:
        return read_origin(checkpoints), ()
    except RunError as error:
        return None, (str(error),)


def read_origin(checkpoints: Checkpoints) -> Origin | None:
    """What an unfinished run began with; None if it had not begun.

    Raises:
        RunError: the record is damaged.
    """
    saved = checkpoints.read(RECORD)
    if saved is None:
        return None
    problems: list[str] = []
    origin = read_record(Origin, saved.values, problems)
    if origin is None or origin.kind not in KINDS:
        raise RunError(f"{checkpoints.folder / RECORD}.json: cannot be read ({'; '.join(problems)})")
    return origin


def write_origin(checkpoints: Checkpoints, origin: Origin) -> None:
    """Record what a run begins with."""
    checkpoints.write(RECORD, Saved(plain(origin)))
