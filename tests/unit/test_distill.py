"""Distillation learns, resumes exactly, runs the teacher once, and reports invalid input."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from loralet.adapters.pack import INITIALIZER_RANGE
from loralet.cli import main, parse
from loralet.config import ComputeOptions, DistillConfig
from loralet.data.tokens import Tokens
from loralet.distil import checkpoint, teacher
from loralet.distil.build import build_student
from loralet.distil.checkpoint import DistilSaver
from loralet.distil.folder import claim_student
from loralet.distil.losses import disagreement, distance
from loralet.distil.mixtures import REPLACED, with_mixtures
from loralet.distil.student import compressed_embeddings, matched_layers, start_student, student_table
from loralet.distil.texts import hold_out, read_texts
from loralet.distil.train import DistilState
from loralet.errors import ConfigError, DataError, RunError, TrainingError
from loralet.events import Advanced, EpochEnded, Event, Stage
from loralet.hub.backbone import load_backbone
from loralet.interrupts import Interrupted, Interrupts
from loralet.runs.environment import read_environment

WORDS = [
    "market",
    "oil",
    "bank",
    "trade",
    "team",
    "cup",
    "coach",
    "final",
    "vote",
    "war",
    "treaty",
    "chip",
    "probe",
    "orbit",
    "the",
    "a",
    "in",
    "of",
]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of four layers with a WordPiece tokenizer."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("teacher")
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    sizes = {
        "num_hidden_layers": 4,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
    }
    BertModel(BertConfig(vocab_size=len(vocabulary), initializer_range=0.3, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture
def config(large: Path, tmp_path: Path) -> DistillConfig:
    generator = np.random.default_rng(0)
    lines = [" ".join(generator.choice(WORDS, size)) for size in generator.integers(3, 12, 60)]
    (tmp_path / "news.txt").write_text("\n".join(lines[:40]) + "\n\n", encoding="utf-8")
    (tmp_path / "more.csv").write_text(
        "text,label\n" + "".join(f"{line},1\n" for line in lines[40:]) + f"{lines[0]},2\n", encoding="utf-8"
    )
    return DistillConfig(
        teacher=str(large),
        text=(str(tmp_path / "news.txt"), str(tmp_path / "more.csv")),
        out=str(tmp_path / "student"),
        width=16,
        feed_forward=32,
        epochs=3,
        pooled_epochs=2,
        lr=1e-2,
        pooled_lr=1e-2,
        batch_size=8,
        max_length=16,
        held_out=0.2,
        compute=ComputeOptions(precision="fp32"),
    )


def quiet(event: Event) -> None:
    pass


def metrics(folder: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key != "seconds"}
        for line in lines
        if line["event"] == "EpochEnded"
    ]


def interrupted(after: int) -> Callable[[Event], None]:
    """A listener that interrupts two steps after the given number of epochs."""
    steps = 0

    def listen(event: Event) -> None:
        nonlocal after, steps
        after -= isinstance(event, EpochEnded) and event.epoch > 0
        steps += after == 0 and isinstance(event, Advanced)
        if steps == 2:
            raise KeyboardInterrupt

    return listen


def test_held_out_losses_decrease(config: DistillConfig) -> None:
    events: list[Event] = []
    last = build_student(config, events.append)
    epochs = [event for event in events if isinstance(event, EpochEnded)]
    assert [event.epoch for event in epochs] == [0, 1, 2, 3, 4, 5]
    assert last == epochs[-1]
    for name in ("tokens", "sentence"):
        assert last.held_out[name] < 0.8 * epochs[0].held_out[name], name
    assert epochs[3].held_out["total"] < 0.6 * epochs[0].held_out["total"]
    assert set(epochs[3].held_out) == {"tokens", "sentence", "similarity", "total"}
    assert epochs[5].held_out["pooled"] < epochs[4].held_out["pooled"]
    assert len(metrics(config.out)) == 6


def test_the_folder_contains_a_checkpoint_with_a_card_and_nothing_else(config: DistillConfig) -> None:
    build_student(config, quiet)
    folder = Path(config.out)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    student = load_backbone(config.out)
    assert student.has_pooler
    assert (student.table.layers, student.table.width, student.table.positions) == (2, 16, 40)
    card = (folder / "README.md").read_text(encoding="utf-8")
    texts = (
        "news.txt: 40 texts",
        "more.csv: 21 texts",
        "duplicates left out: 1",
        "60 different texts, 20% of them held out",
        "3 mixtures of each",
    )
    for said in (*texts, "layers 2, 4", "120 steps"):
        assert said in card, said
    assert str(folder.parent) not in card


def test_half_halves_the_file_size_with_nearly_equal_values(config: DistillConfig) -> None:
    short = dataclasses.replace(config, epochs=1, pooled_epochs=0)
    build_student(short, quiet)
    build_student(dataclasses.replace(short, out=config.out + "16", half=True), quiet)
    full, half = (load_file(Path(out) / "model.safetensors") for out in (config.out, config.out + "16"))
    for name, tensor in half.items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor, full[name].half()), name
    assert load_backbone(config.out + "16").weights["embeddings.word"].dtype == torch.float32


@pytest.mark.parametrize("after", [0, 1, 3, 4])
def test_a_resumed_distillation_equals_an_uninterrupted_one(config: DistillConfig, after: int) -> None:
    build_student(config, quiet)
    second = dataclasses.replace(config, out=config.out + "-again")
    with pytest.raises(KeyboardInterrupt):
        build_student(second, interrupted(after) if after else _at_once)
    assert not (Path(second.out) / "config.json").exists()
    build_student(second, quiet)
    one, two = (load_file(Path(out) / "model.safetensors") for out in (config.out, second.out))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name
    assert metrics(config.out) == metrics(second.out)
    other = dataclasses.replace(config, out=config.out + "-other", seed=1)
    build_student(other, quiet)
    assert not torch.equal(
        load_file(Path(other.out) / "model.safetensors")["pooler.dense.weight"], one["pooler.dense.weight"]
    )


def _at_once(event: Event) -> None:
    if isinstance(event, EpochEnded):
        raise KeyboardInterrupt


STEPS = 72
"""Of two epochs and a pooled one, each of 48 texts and 144 mixtures in batches of 8."""


def test_a_signal_writes_a_checkpoint_between_two_steps(config: DistillConfig) -> None:
    """The distillation goes on within the epoch, takes each step once, and records nothing twice."""
    config = dataclasses.replace(config, epochs=2, pooled_epochs=1)
    build_student(config, quiet)
    second, taken = dataclasses.replace(config, out=config.out + "-again"), 0

    def listen(event: Event) -> None:
        nonlocal taken
        taken += isinstance(event, Advanced) and event.task.endswith("steps")
        if isinstance(event, Advanced) and taken in stops:
            os.kill(os.getpid(), signal.SIGTERM)

    for stop in (9, 27, 50):
        stops = {stop}
        with Interrupts() as interrupts, pytest.raises(Interrupted):
            build_student(second, listen, interrupts)
        assert taken == stop
    stops = set()
    build_student(second, listen)
    assert taken == STEPS
    one, two = (load_file(Path(out) / "model.safetensors") for out in (config.out, second.out))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert metrics(config.out) == metrics(second.out)
    lines = [(Path(out) / "metrics.jsonl").read_text().count("\n") for out in (config.out, second.out)]
    assert lines == [5, 5]
    cards = [
        (Path(out) / "README.md").read_text().replace("student-again", "student") for out in (config.out, second.out)
    ]
    assert cards[0] == cards[1]
    assert len(read_environment(Path(second.out)).resumed) == 3


def test_a_distillation_continues_only_with_the_same_options_and_texts(config: DistillConfig) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_student(config, interrupted(1))
    with pytest.raises(ConfigError, match=r"2 problems(?s:.*)lr is 0.5, it was 0.01(?s:.*)batch_size is 4, it was 8"):
        build_student(dataclasses.replace(config, lr=0.5, batch_size=4), quiet)
    path = Path(config.text[0])
    text = path.read_text()
    path.write_text(text.replace("oil", "gas"))
    with pytest.raises(DataError, match="the texts or the start have changed since the distillation in"):
        build_student(config, quiet)
    path.write_text(text)
    build_student(dataclasses.replace(config, checkpoint_every=0.0), quiet)
    before = sorted(path.name for path in Path(config.out).iterdir())
    assert not {"lock", "checkpoint.safetensors"} & set(before)
    with pytest.raises(RunError, match="is complete"):
        build_student(config, quiet)
    assert sorted(path.name for path in Path(config.out).iterdir()) == before


def test_a_second_process_may_not_distil_into_the_same_folder(config: DistillConfig) -> None:
    with claim_student(config) as folder:
        with pytest.raises(RunError, match="another process is training into this folder"):
            build_student(config, quiet)
        assert [path.name for path in folder.iterdir()] == ["lock"]
    assert not folder.exists()


def test_a_folder_of_a_process_killed_before_its_first_file_is_used(config: DistillConfig) -> None:
    folder = Path(config.out)
    folder.mkdir()
    for name in ("lock", ".config.toml.0123456789abcdef"):
        (folder / name).touch()
    with claim_student(config):
        pass
    (folder / ".env.settings").touch()
    with pytest.raises(RunError, match="not empty"), claim_student(config):
        pass
    assert (folder / ".env.settings").exists()


def test_a_checkpoint_that_cannot_be_written_is_announced(
    config: DistillConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "student/checkpoint.safetensors")

    heard: list[Event] = []
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_checkpoint", full)
        build_student(dataclasses.replace(config, epochs=1, pooled_epochs=0), heard.append)
    said = [event.text for event in heard if isinstance(event, Stage) and "not written" in event.text]
    wanted = "checkpoint not written (student/checkpoint.safetensors: No space left on device); there is none yet"
    assert said == [wanted] * 2  # at the end of each epoch


def test_checkpoints_are_written_by_a_clock_that_does_not_jump(config: DistillConfig, tmp_path: Path) -> None:
    """Every 30 s, less often if writing takes more than a hundredth of the time."""
    now, written = 1000.0, 0
    tmp_path.joinpath("metrics.jsonl").touch()
    state = DistilState.start({"weight": torch.zeros(2, 2)})
    saver = DistilSaver(tmp_path, state, "", 30.0, Interrupts(), quiet, lambda: now)
    for _ in range(100):
        now += 1
        saver.after(Advanced("steps", 1, 2))
        if (tmp_path / "checkpoint.safetensors").exists():
            written += 1
            (tmp_path / "checkpoint.safetensors").unlink()
    assert written == 3


def test_an_invalid_checkpoint_is_reported(config: DistillConfig) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_student(config, interrupted(1))
    (Path(config.out) / "checkpoint.safetensors").write_bytes(b"{}")
    with pytest.raises(RunError, match=r"checkpoint\.safetensors: cannot be read"):
        build_student(config, quiet)


def test_the_teacher_runs_once(config: DistillConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORALET_CACHE", str(tmp_path / "cache"))
    mixed = dataclasses.replace(config, epochs=1, pooled_epochs=0)
    short = dataclasses.replace(mixed, mixtures=0, out=config.out + "1")
    build_student(mixed, quiet)
    build_student(short, quiet)
    computed: list[object] = []
    compute = teacher._compute

    def counted(*arguments: object) -> None:
        computed.append(arguments)
        compute(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(teacher, "_compute", counted)
    build_student(dataclasses.replace(short, out=config.out + "2", seed=5), quiet)
    build_student(dataclasses.replace(mixed, out=config.out + "2-mixed", lr=1e-3), quiet)
    assert not computed
    build_student(dataclasses.replace(short, out=config.out + "3", match=(1, 4)), quiet)
    assert len(computed) == 1
    build_student(dataclasses.replace(short, out=config.out + "4", max_length=8), quiet)
    assert len(computed) == 2


def test_insufficient_disk_space_is_reported_before_computing_states(
    config: DistillConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORALET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(teacher.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match="set LORALET_CACHE"):
        build_student(config, quiet)


def test_a_non_finite_loss_stops_training(config: DistillConfig) -> None:
    with pytest.raises(TrainingError, match="lower --lr"):
        build_student(dataclasses.replace(config, lr=1e38), quiet)


def test_all_invalid_options_are_listed() -> None:
    bad = [
        "distill",
        "--width",
        "10",
        "--heads",
        "3",
        "--layers",
        "0",
        "--epochs",
        "0",
        "--pooled-epochs",
        "-1",
        "--mixtures",
        "-1",
    ]
    with pytest.raises(ConfigError) as caught:
        parse([*bad, "--lr", "0", "--batch-size", "1", "--max-length", "2", "--held-out", "1", "--match", "3", "2"])
    said = str(caught.value)
    assert said.startswith("14 problems")
    for name in (
        "teacher",
        "text",
        "out",
        "width",
        "layers",
        "epochs",
        "pooled_epochs",
        "mixtures",
        "lr",
        "batch_size",
        "max_length",
        "match",
    ):
        assert f"  - {name} " in said, name


def test_options_that_do_not_match_the_teacher_are_listed(config: DistillConfig) -> None:
    with pytest.raises(ConfigError, match=r"3 problems(?s:.*)width is 64(?s:.*)layers is 5(?s:.*)has 4 layers"):
        build_student(dataclasses.replace(config, width=64, layers=5, match=(1, 2, 3, 4, 5)), quiet)
    assert not Path(config.out).exists()


def test_duplicate_texts_are_removed_and_invalid_files_are_listed(config: DistillConfig, tmp_path: Path) -> None:
    texts = read_texts(config.text, "")
    assert (len(texts.texts), texts.repeated, texts.counts) == (60, 1, (("news.txt", 40), ("more.csv", 21)))
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(DataError) as caught:
        read_texts([str(tmp_path / name) for name in ("absent.txt", "empty.txt", "latin.txt")], "")
    for said in ("absent.txt: cannot be read", "empty.txt: the file has no text", "latin.txt: line 2 is not UTF-8"):
        assert said in str(caught.value)
    with pytest.raises(DataError, match="too few"):
        hold_out(3, 0.1, 0)


def test_held_out_rows_are_a_seeded_split() -> None:
    train, held_out = hold_out(100, 0.1, 0)
    assert sorted([*train, *held_out]) == list(range(100))
    assert len(held_out) == 10
    assert not np.array_equal(held_out, hold_out(100, 0.1, 1)[1])


@pytest.mark.parametrize(
    ("teacher_layers", "student_layers", "expected"),
    [(6, 2, (3, 6)), (12, 4, (3, 6, 9, 12)), (4, 4, (1, 2, 3, 4)), (12, 1, (12,))],
)
def test_matched_layers_are_evenly_spaced(teacher_layers: int, student_layers: int, expected: tuple[int, ...]) -> None:
    assert matched_layers(teacher_layers, student_layers, ()) == expected
    assert matched_layers(teacher_layers, student_layers, (1,)) == (1,)


def test_compressed_embeddings_keep_the_principal_components(config: DistillConfig) -> None:
    """At full width the axes are a rotation: distances between words equal the teacher's up to a factor."""
    source = load_backbone(config.teacher)
    counts = np.arange(source.table.vocabulary)
    whole = compressed_embeddings(source, student_table(dataclasses.replace(config, width=32), source.table), counts)
    ratio = torch.pdist(whole["embeddings.word"]) / torch.pdist(source.weights["embeddings.word"])
    assert (ratio / ratio.mean() - 1).abs().max() < 1e-4
    total = whole["embeddings.word"] + whole["embeddings.type"][0] + whole["embeddings.position"][3]
    own = (
        source.weights["embeddings.word"]
        + source.weights["embeddings.type"][0]
        + source.weights["embeddings.position"][3]
    )
    norms = total.norm(dim=1) / own.norm(dim=1)
    assert (norms / norms.mean() - 1).abs().max() < 1e-4
    narrow = compressed_embeddings(source, student_table(config, source.table), counts)
    ratio = torch.pdist(narrow["embeddings.word"]) / torch.pdist(source.weights["embeddings.word"])
    assert (ratio / ratio.mean() - 1).abs().max() > 1e-2


def test_a_student_of_the_teachers_sizes_starts_with_its_layers(config: DistillConfig) -> None:
    from transformers import BertModel

    config = dataclasses.replace(config, width=32, heads=4, feed_forward=64, positions=20, lr=1e-12, epochs=1)
    build_student(dataclasses.replace(config, pooled_epochs=0), quiet)
    model = BertModel.from_pretrained(config.teacher)
    kept = [model.encoder.layer[1], model.encoder.layer[3]]
    saved = load_file(Path(config.out) / "model.safetensors")
    expected = {
        f"encoder.layer.{i}.{name}": t for i, layer in enumerate(kept) for name, t in layer.state_dict().items()
    }
    expected |= {name: t for name, t in model.state_dict().items() if not name.startswith("encoder.")}
    expected["embeddings.position_embeddings.weight"] = expected["embeddings.position_embeddings.weight"][:20]
    assert all((saved[name] - expected[name]).abs().max() < 1e-6 for name in saved)
    whole = dataclasses.replace(config, layers=4, match=(), out=config.out + "-whole", pooled_epochs=0)
    assert build_student(whole, quiet).held_out["sentence"] == pytest.approx(0, abs=1e-4), "the teacher itself"
    card = (Path(config.out) / "README.md").read_text(encoding="utf-8")
    assert "initialised with the teacher's layers 2, 4 and its embeddings" in card
    assert load_backbone(config.out).pools_mean, "only the mean over the tokens was trained"
    assert "1 epoch at a peak learning rate of 1e-12; " in card


def test_a_teacher_without_position_embeddings_gives_the_student_random_ones(config: DistillConfig) -> None:
    source = load_backbone(config.teacher)
    table = student_table(config, source.table)
    counts = np.ones(source.table.vocabulary, np.int64)
    rotary = dataclasses.replace(
        source, weights={name: t for name, t in source.weights.items() if name != "embeddings.position"}
    )
    assert "embeddings.position" not in compressed_embeddings(rotary, table, counts)
    position = start_student(rotary, table, (2, 4), counts, 0)["embeddings.position"]
    assert position.shape == (table.positions, table.width)
    assert position.std() == pytest.approx(INITIALIZER_RANGE, rel=0.1)


def test_the_axes_are_weighted_by_token_frequency(config: DistillConfig) -> None:
    """A token is represented better if it makes up most of the text than if it is rare."""
    source = load_backbone(config.teacher)
    table = student_table(dataclasses.replace(config, width=2), source.table)
    errors = []
    for common in ((10, 11, 12), (20, 21, 22)):
        counts = np.zeros(source.table.vocabulary, np.int64)
        counts[list(common)] = 1000
        words = compressed_embeddings(source, table, counts)["embeddings.word"]
        ratio = torch.pdist(words[[10, 11, 12]]) / torch.pdist(source.weights["embeddings.word"][[10, 11, 12]])
        errors.append(float(ratio.std() / ratio.mean()))
    assert errors[0] < 0.05 < errors[1]


def test_losses_match_their_definitions() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 7, generator=generator), torch.randn(5, 7, generator=generator)
    cosine = torch.nn.functional.cosine_similarity
    assert abs(distance(a, b) - (1 - cosine(a, b).mean())) < 1e-6
    assert distance(a, 3 * a).abs() < 1e-6
    expected = sum((cosine(a[i], a[j], 0) - cosine(b[i], b[j], 0)) ** 2 for i in range(5) for j in range(5)) / 25
    assert abs(disagreement(a, b) - expected) < 1e-6
    assert disagreement(a, -2 * a) < 1e-9 < disagreement(a, b)


def test_the_command_prints_losses_and_plain_progress(
    config: DistillConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = [
        "--width",
        "16",
        "--feed-forward",
        "32",
        "--batch-size",
        "8",
        "--max-length",
        "16",
        "--held-out",
        "0.2",
        "--precision",
        "fp32",
    ]
    words = [
        "distill",
        config.teacher,
        "--text",
        *config.text,
        "--out",
        config.out,
        "--epochs",
        "1",
        "--pooled-epochs",
        "0",
        "--licence",
        "mit",
    ]
    assert main([*words, *sizes]) == 0
    printed = capsys.readouterr()
    assert "held-out losses after 1 epochs: tokens" in printed.out
    assert "· epoch 1/1 · loss" in printed.err
    assert "48 training texts and 144 mixtures, 12 held out (duplicates left out: 1)" in printed.err
    card = (Path(config.out) / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card
    assert f"loralet distill {Path(config.teacher).name} --text news.txt more.csv --out student --width 16" in card


def test_a_folder_with_other_files_is_rejected(config: DistillConfig, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("")
    with pytest.raises(RunError, match="not empty"):
        build_student(dataclasses.replace(config, out=str(tmp_path / "taken")), quiet)


def test_a_mixture_joins_the_beginning_and_the_end_of_two_rows() -> None:
    """Rows of distinct tokens, so that each token of a mixture identifies its source."""
    lengths = np.array([6, 9, 4, 12])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(100, 100 + starts[-1])
    ids[starts[:-1]], ids[starts[1:] - 1] = 2, 3
    rows, vocabulary, longest, copies = np.array([0, 1, 3]), 50, 10, 40
    tokens, chosen = with_mixtures(Tokens(ids, starts), rows, copies, vocabulary, longest, seed=0)
    assert np.array_equal(tokens.ids[: len(ids)], ids), "the rows are unchanged"
    assert chosen.tolist() == [*rows, *range(4, 4 + 3 * copies)]
    replaced = kept = 0
    for i in range(4, len(tokens)):
        mixture = tokens.ids[tokens.starts[i] : tokens.starts[i + 1]]
        assert 2 <= len(mixture) <= longest
        assert (mixture[0], mixture[-1]) == (2, 3), "special tokens at both ends are never replaced"
        inner = mixture[1:-1]
        sources = np.searchsorted(starts, inner[inner >= 100] - 100, side="right") - 1
        assert not (sources == 2).any(), "a row that was not chosen contributes no tokens"
        assert len(set(sources)) <= 2
        assert (np.diff(sources) != 0).sum() <= 1
        replaced, kept = replaced + int((inner < vocabulary).sum()), kept + int((inner >= 100).sum())
    assert abs(replaced / (replaced + kept) - REPLACED) < 0.04
    again, _ = with_mixtures(Tokens(ids, starts), rows, copies, vocabulary, longest, seed=0)
    other, _ = with_mixtures(Tokens(ids, starts), rows, copies, vocabulary, longest, seed=1)
    assert np.array_equal(tokens.ids, again.ids)
    assert not np.array_equal(tokens.ids, other.ids)


def test_without_mixtures_only_the_texts_are_used(config: DistillConfig, tmp_path: Path) -> None:
    events: list[Event] = []
    build_student(dataclasses.replace(config, mixtures=0, epochs=1, pooled_epochs=0), events.append)
    assert (
        max(event.total for event in events if isinstance(event, Advanced) and "states" not in event.task) == 6
    )  # 48 texts, 8 per step
    assert "mixtures of" not in (Path(config.out) / "README.md").read_text(encoding="utf-8")
    events.clear()
    more = dataclasses.replace(config, mixtures=2, epochs=1, pooled_epochs=0, out=config.out + "-mixed")
    build_student(more, events.append)
    assert max(event.total for event in events if isinstance(event, Advanced) and "states" not in event.task) == 18
    assert "2 mixtures of each training text" in (Path(more.out) / "README.md").read_text(encoding="utf-8")
