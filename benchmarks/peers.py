"""The peers of loralet: Trainer + PEFT, the transformers pipeline, ONNX Runtime, a linear model, and fastText.

Each function imports its own libraries, because the memory of each contender is measured.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from ours import grid_run, open_pack
from work import BATCH, EVERY, LENGTH, Measured, Work, measured

from loralet.config import DataOptions, TrainingOptions
from loralet.data.sources import Split
from loralet.data.tokens import tokenise
from loralet.training.session import Row, make_artifact


@dataclass(frozen=True)
class Recipe:
    """How a Trainer trains.

    Args:
        padded: pad every text to 128 tokens; otherwise batch texts of similar length and pad each batch to its longest.
        lora: train r16 alpha 64 on query and value with PEFT; otherwise all parameters of the model.
        bf16: use the Trainer's automatic mixed precision.
        eval_every: steps between two checks on the validation sample; None: no checks.
        lr: peak learning rate.
        dropout: dropout on the adapters' input.
        seed: seed of the run.
    """

    padded: bool = False
    lora: bool = True
    bf16: bool = False
    eval_every: int | None = None
    lr: float = 5e-5
    dropout: float = 0.1
    seed: int = 0


DYNAMIC = Recipe()
PADDED = Recipe(padded=True)
BF16 = Recipe(bf16=True)
FULL = Recipe(lora=False, lr=3e-4)
CHECKED = Recipe(eval_every=EVERY)


@dataclass
class PeerRun:
    """A Trainer, its validation rows, and the start and end times of its training loop."""

    trainer: Any
    validation: Any
    clock: dict[str, float] = field(default_factory=dict)


def trainer_rows(split: Split, tokenizer: Any, padded: bool) -> Any:
    """A split as a torch data set for the Trainer."""
    from torch.utils.data import Dataset

    class Rows(Dataset):  # type: ignore[type-arg]
        def __init__(self) -> None:
            padding = "max_length" if padded else False
            self.encoded = tokenizer(split.texts.to_pylist(), truncation=True, max_length=LENGTH, padding=padding)
            self.labels = split.targets.tolist()

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, i: int) -> dict[str, Any]:
            inputs = {name: self.encoded[name][i] for name in ("input_ids", "attention_mask")}
            return inputs | {"labels": self.labels[i]}

    return Rows()


def open_trainer(work: Work, recipe: Recipe) -> PeerRun:
    """Create the Trainer of a recipe."""
    import numpy as np
    import transformers
    from peft import LoraConfig, get_peft_model

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    corpus, padded = work.corpus(), recipe.padded
    labels = len(corpus.dataset.task.labels)
    tokenizer = transformers.AutoTokenizer.from_pretrained(work.model)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(work.model, num_labels=labels)
    if recipe.lora:
        lora = LoraConfig(
            task_type="SEQ_CLS",
            r=16,
            lora_alpha=64,
            lora_dropout=recipe.dropout,
            target_modules=["query", "value"],
        )
        model = get_peft_model(model, lora)
    clock: dict[str, float] = {}

    class Clock(transformers.TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            clock["begin"] = time.perf_counter()

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            clock["end"] = time.perf_counter()

    arguments = transformers.TrainingArguments(
        output_dir=str(work.folder),
        max_steps=work.steps,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=64,
        learning_rate=recipe.lr,
        seed=recipe.seed,
        use_cpu=True,
        bf16=recipe.bf16,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        train_sampling_strategy="random" if padded else "group_by_length",
        dataloader_pin_memory=False,
        eval_strategy="steps" if recipe.eval_every else "no",
        eval_steps=recipe.eval_every,
    )
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=trainer_rows(corpus.train, tokenizer, padded),
        eval_dataset=trainer_rows(corpus.sample, tokenizer, padded),
        processing_class=tokenizer,
        callbacks=[Clock()],
        compute_metrics=lambda p: {"accuracy": float((np.argmax(p.predictions, -1) == p.label_ids).mean())},
    )
    return PeerRun(trainer, trainer_rows(corpus.validation, tokenizer, padded), clock)


def train(work: Work, recipe: Recipe = DYNAMIC) -> Measured:
    """Train with the Trainer. Its start-up time is not counted."""
    run = open_trainer(work, recipe)
    run.trainer.train()
    return measured(work.steps * BATCH, run.clock["end"] - run.clock["begin"])


def evaluate(work: Work) -> Measured:
    """Compute the logits of all validation rows, tokenised in advance, with the Trainer."""
    run = open_trainer(work, DYNAMIC)
    run.trainer.predict(run.validation)
    started = time.perf_counter()
    run.trainer.predict(run.validation)
    return measured(len(run.validation), time.perf_counter() - started)


def pipeline(work: Work) -> Measured:
    """Texts to labels with the transformers pipeline in batches of 32."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    corpus = work.corpus()
    texts, labels = corpus.validation.texts.to_pylist()[: work.rows], len(corpus.dataset.task.labels)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(work.model, num_labels=labels)
    tokenizer = transformers.AutoTokenizer.from_pretrained(work.model)
    classify = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    classify(texts[:64], batch_size=32, truncation=True, max_length=LENGTH)
    started = time.perf_counter()
    classify(texts, batch_size=32, truncation=True, max_length=LENGTH)
    return measured(len(texts), time.perf_counter() - started)


def onnx(work: Work) -> Measured:
    """Texts to probabilities, including tokenising, with ONNX Runtime and the graph exported by loralet.

    Texts of similar length are batched and loralet tokenises, which is the fastest form of this peer.
    """
    from loralet.artifacts.merge import merge
    from loralet.export.graph import onnx_logits, write_onnx

    opened = open_pack(work, [grid_run(work.model)], TrainingOptions())
    session, state, texts = opened.session, opened.state, opened.corpus.validation.texts
    run, tokenizer = state.active[0].run, session.backbone.tokenizer
    row = Row(run, tensors=state.pack.extract(state.parameters, 0))
    artifact = make_artifact(row, session, opened.corpus, work.data, DataOptions(max_length=LENGTH))
    path = work.folder / "peer.onnx"
    write_onnx(merge(artifact, session.backbone), path)
    onnx_logits(path, tokenise(texts.slice(0, 64), tokenizer, LENGTH))
    started = time.perf_counter()
    session.task.probabilities(onnx_logits(path, tokenise(texts, tokenizer, LENGTH))).tolist()
    return measured(len(texts), time.perf_counter() - started)


def linear_model(work: Work) -> Measured:
    """Fit TF-IDF + linear SVM, the baseline of each study."""
    from loralet.tasks.baselines import LinearWords

    corpus = work.corpus()
    texts = corpus.train.texts.to_pylist()
    started = time.perf_counter()
    fitted = LinearWords.fit(texts, corpus.train.targets)
    seconds = time.perf_counter() - started
    right = fitted.predict(corpus.validation.texts.to_pylist()) == corpus.validation.targets
    return measured(len(texts), seconds) | {"accuracy": float(right.mean())}


def fasttext(work: Work) -> Measured:
    """Fit fastText with word bigrams, 5 epochs at learning rate 0.5, as in its text classification tutorial."""
    import fasttext as library

    corpus = work.corpus()
    path = work.folder / "fasttext.txt"
    rows = zip(corpus.train.texts.to_pylist(), corpus.train.targets.tolist(), strict=True)
    lines = [f"__label__{label} {' '.join(text.lower().split())}\n" for text, label in rows]
    path.write_text("".join(lines), encoding="utf-8")
    started = time.perf_counter()
    model = library.train_supervised(str(path), epoch=5, lr=0.5, wordNgrams=2, thread=os.cpu_count(), verbose=0)
    seconds = time.perf_counter() - started
    texts = [" ".join(text.lower().split()) for text in corpus.validation.texts.to_pylist()]
    found = [int(labels[0].removeprefix("__label__")) for labels in model.predict(texts)[0]]
    right = sum(a == b for a, b in zip(found, corpus.validation.targets.tolist(), strict=True))
    return measured(len(corpus.train), seconds) | {"accuracy": right / len(texts)}
