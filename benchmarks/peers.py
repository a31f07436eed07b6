"""The peers of loralet in training and evaluation: Trainer + PEFT, a linear model, and fastText.

Each function imports its own libraries, because the memory of each contender is measured.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from work import LENGTH, Measured, Work, measured, timed

from loralet.data.sources import Split


@dataclass(frozen=True)
class Recipe:
    """How a Trainer trains.

    Args:
        padded: pad every text to 128 tokens; otherwise batch texts of similar length and pad each batch to its longest.
        lora: train r16 alpha 64 with PEFT; otherwise all parameters of the model.
        targets: linear layers with adapters, as PEFT's ``target_modules``: names, or one regular expression.
        bf16: use the Trainer's automatic mixed precision, and bf16 weights in an evaluation without training.
        checks: evaluate on the validation sample every ``Work.every`` steps.
        lr: peak learning rate.
        dropout: dropout on the adapters' input.
        seed: seed of the run.
    """

    padded: bool = False
    lora: bool = True
    targets: tuple[str, ...] | str = ("query", "value")
    bf16: bool = False
    checks: bool = False
    lr: float = 5e-5
    dropout: float = 0.1
    seed: int = 0


DYNAMIC = Recipe()
PADDED = Recipe(padded=True)
BF16 = Recipe(bf16=True)
FULL = Recipe(lora=False, lr=3e-4)
FULL_BF16 = Recipe(lora=False, lr=3e-4, bf16=True)
VALUE = Recipe(targets=("value",))
VALUE_BF16 = Recipe(targets=("value",), bf16=True)
LINEAR_LAYERS = (
    r".*\.layer\.\d+\.(attention\.(self\.(query|key|value)|output\.dense)|intermediate\.dense|output\.dense)"
)
"""The linear layers of BERT's encoder layers, without the pooler, as loralet's ``all-linear``."""
ALL_LINEAR = Recipe(targets=LINEAR_LAYERS)
ALL_LINEAR_BF16 = Recipe(targets=LINEAR_LAYERS, bf16=True)
CHECKED = Recipe(checks=True)
CHECKED_BF16 = Recipe(checks=True, bf16=True)


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
            target_modules=recipe.targets if isinstance(recipe.targets, str) else list(recipe.targets),
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
        per_device_train_batch_size=work.batch,
        per_device_eval_batch_size=64,
        learning_rate=recipe.lr,
        seed=recipe.seed,
        use_cpu=True,
        bf16=recipe.bf16,
        bf16_full_eval=recipe.bf16,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        train_sampling_strategy="random" if padded else "group_by_length",
        dataloader_pin_memory=False,
        eval_strategy="steps" if recipe.checks else "no",
        eval_steps=work.every if recipe.checks else None,
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
    if work.exact:
        run.trainer.args.max_steps = 1
        run.trainer.train()
        run.trainer.args.max_steps = work.steps
        run.trainer.optimizer = run.trainer.lr_scheduler = None
    run.trainer.train()
    return measured(work.steps * work.batch, run.clock["end"] - run.clock["begin"])


def evaluate(work: Work, recipe: Recipe = DYNAMIC) -> Measured:
    """Compute the logits of all validation rows, tokenised in advance, with the Trainer."""
    run = open_trainer(work, recipe)
    run.trainer.predict(run.validation)
    return timed(lambda: run.trainer.predict(run.validation), len(run.validation), work)


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
