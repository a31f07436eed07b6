"""One contender's work in a process of its own; prints one line of JSON. Called by speed.py.

python benchmarks/contenders.py NAME DATA MODEL --steps 150
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BATCH, LENGTH, EVERY, SAMPLE = 32, 128, 50, 512
GRID = [(rank, alpha) for rank in (4, 16, 32) for alpha in (64.0, 256.0, 512.0)]


@dataclass(frozen=True)
class Task:
    data: str
    model: str
    steps: int
    rows: int


def measured(rows: float, seconds: float) -> dict[str, float]:
    """Rows a second, and the largest resident memory of this process (Linux: kilobytes)."""
    return {"rows_per_second": rows / seconds, "seconds": seconds, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


# ---- peers: transformers and PEFT ----


def peer_trainer(task: Task, padded: bool, lora: bool, bf16: bool, evaluate_every: int | None) -> tuple[Any, dict[str, float], Any]:
    """A Trainer of the mission's recipe, its timing filled in as it trains, and the validation rows."""
    import numpy as np
    import transformers
    from peft import LoraConfig, get_peft_model
    from torch.utils.data import Dataset

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    corpus = load(task)
    tokenizer = transformers.AutoTokenizer.from_pretrained(task.model)

    class Rows(Dataset):  # type: ignore[type-arg]
        def __init__(self, split: Any) -> None:
            self.encoded = tokenizer(split.texts.to_pylist(), truncation=True, max_length=LENGTH, padding="max_length" if padded else False)
            self.labels = split.labels.tolist()

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, i: int) -> dict[str, Any]:
            return {"input_ids": self.encoded["input_ids"][i], "attention_mask": self.encoded["attention_mask"][i], "labels": self.labels[i]}

    model = transformers.AutoModelForSequenceClassification.from_pretrained(task.model, num_labels=len(corpus.dataset.labels))
    if lora:
        model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=16, lora_alpha=64, lora_dropout=0.1, target_modules=["query", "value"]))
    clock: dict[str, float] = {}

    class Clock(transformers.TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            clock["begin"] = time.perf_counter()

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            clock["end"] = time.perf_counter()

    arguments = transformers.TrainingArguments(
        output_dir=os.environ["BENCH_FOLDER"], max_steps=task.steps, per_device_train_batch_size=BATCH, per_device_eval_batch_size=64,
        learning_rate=5e-5 if lora else 3e-4, use_cpu=True, bf16=bf16, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
        train_sampling_strategy="random" if padded else "group_by_length", dataloader_pin_memory=False,
        eval_strategy="steps" if evaluate_every else "no", eval_steps=evaluate_every,
    )  # fmt: skip
    validation = Rows(corpus.sample)
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=Rows(corpus.train), eval_dataset=validation, processing_class=tokenizer, callbacks=[Clock()],
        compute_metrics=lambda p: {"accuracy": float((np.argmax(p.predictions, -1) == p.label_ids).mean())},
    )  # fmt: skip
    return trainer, clock, Rows(corpus.validation)


def peer_train(task: Task, padded: bool = False, lora: bool = True, bf16: bool = False) -> dict[str, float]:
    trainer, clock, _ = peer_trainer(task, padded, lora, bf16, None)
    trainer.train()
    return measured(task.steps * BATCH, clock["end"] - clock["begin"])


def peer_checked(task: Task) -> dict[str, float]:
    trainer, clock, _ = peer_trainer(task, False, True, False, EVERY)
    trainer.train()
    return measured(task.steps * BATCH, clock["end"] - clock["begin"])


def peer_evaluate(task: Task) -> dict[str, float]:
    trainer, _, rows = peer_trainer(task, False, True, False, None)
    trainer.predict(rows)
    started = time.perf_counter()
    trainer.predict(rows)
    return measured(len(rows), time.perf_counter() - started)


def peer_pipeline(task: Task) -> dict[str, float]:
    import transformers

    transformers.utils.logging.set_verbosity_error()
    texts = load(task).validation.texts.to_pylist()[: task.rows]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(task.model, num_labels=4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(task.model)
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    pipeline(texts[:64], batch_size=32, truncation=True, max_length=LENGTH)
    started = time.perf_counter()
    pipeline(texts, batch_size=32, truncation=True, max_length=LENGTH)
    return measured(len(texts), time.perf_counter() - started)


def peer_words(task: Task) -> dict[str, float]:
    from loralet.studies.baselines import LinearWords

    train = load(task).train
    started = time.perf_counter()
    LinearWords.fit(train, 0)
    return measured(len(train), time.perf_counter() - started)


# ---- ours ----


def load(task: Task) -> Any:
    from loralet.config import DataOptions
    from loralet.engine.corpus import load_corpus

    return load_corpus(task.data, DataOptions(), SAMPLE)


def our_state(task: Task, runs: list[Any], precision: str) -> tuple[Any, Any, Any]:
    import torch

    from loralet.config import TrainingOptions
    from loralet.engine.corpus import corpus_rows
    from loralet.engine.device import choose_dtype, place
    from loralet.engine.packs import build_pack
    from loralet.engine.train import TrainingState
    from loralet.store.backbone import load_backbone

    corpus, backbone, device = load(task), load_backbone(task.model), torch.device("cpu")
    weights = place(backbone.weights, device, choose_dtype(precision, device))
    options = TrainingOptions(steps=task.steps, eval_every=10**9)
    pack = build_pack(runs, weights, backbone.shape, len(corpus.dataset.labels), options.head, options.head_dropout)
    return TrainingState.start(pack, runs, 0.0), corpus_rows(corpus, backbone, LENGTH), options


def our_train(task: Task, grid: bool = False, precision: str = "auto", evaluate_every: int | None = None, dropout: float = 0.0) -> dict[str, float]:
    from dataclasses import replace

    from loralet.engine.packs import lora_run
    from loralet.engine.train import train
    from loralet.events import Stepped

    cells = GRID if grid else [(16, 64.0)]
    runs = [lora_run(task.model, rank, alpha, dropout, ("query", "value"), "alpha/r", 1e-3, 0) for rank, alpha in cells]
    state, rows, options = our_state(task, runs, precision)
    options = replace(options, eval_every=evaluate_every or options.eval_every)
    started, seen = time.perf_counter(), 0
    for event in train(state, rows.train, rows.sample, options, 0):
        seen += event.rows * len(event.runs) if isinstance(event, Stepped) else 0
    return measured(seen, time.perf_counter() - started)


def our_evaluate(task: Task, precision: str = "auto") -> dict[str, float]:
    from loralet.engine.evaluate import logits_of
    from loralet.engine.packs import lora_run

    state, rows, _ = our_state(task, [lora_run(task.model, 16, 64.0, 0.0, ("query", "value"), "alpha/r", 1e-3, 0)], precision)
    forward = state.pack.logits(state.parameters)
    logits_of(forward, rows.validation.tokens, 1)
    started = time.perf_counter()
    logits_of(forward, rows.validation.tokens, 1)
    return measured(len(rows.validation), time.perf_counter() - started)


def our_predict(task: Task, precision: str = "auto") -> dict[str, float]:
    """Texts to probabilities, tokenising included, as the pipeline does it."""
    from loralet.data.tokens import tokenise
    from loralet.engine.evaluate import logits_of
    from loralet.engine.packs import lora_run
    from loralet.store.backbone import load_backbone

    state, _, _ = our_state(task, [lora_run(task.model, 16, 64.0, 0.0, ("query", "value"), "alpha/r", 1e-3, 0)], precision)
    forward, tokenizer, texts = state.pack.logits(state.parameters), load_backbone(task.model).tokenizer, load(task).validation.texts
    logits_of(forward, tokenise(texts.slice(0, 64), tokenizer, LENGTH), 1)
    started = time.perf_counter()
    logits_of(forward, tokenise(texts, tokenizer, LENGTH), 1).softmax(-1).tolist()
    return measured(len(texts), time.perf_counter() - started)


CONTENDERS: dict[str, Callable[[Task], dict[str, float]]] = {
    "peer a: Trainer + PEFT, padded to 128": lambda t: peer_train(t, padded=True),
    "peer b: Trainer + PEFT, grouped by length": peer_train,
    "peer b in bf16": lambda t: peer_train(t, bf16=True),
    "peer c: Trainer, full fine-tuning, grouped by length": lambda t: peer_train(t, lora=False),
    "loralet, one run": our_train,
    "loralet, one run, dropout 0.1": lambda t: our_train(t, dropout=0.1),
    "loralet, one run, fp32": lambda t: our_train(t, precision="fp32"),
    "loralet, pack of nine (rows x runs)": lambda t: our_train(t, grid=True),
    "peer b with a check every 50 steps": peer_checked,
    "loralet, pack of nine with a check every 50 steps (rows x runs)": lambda t: our_train(t, grid=True, evaluate_every=EVERY),
    "evaluation, peer b": peer_evaluate,
    "evaluation, loralet": our_evaluate,
    "evaluation, loralet, fp32": lambda t: our_evaluate(t, "fp32"),
    "texts to labels, transformers pipeline": peer_pipeline,
    "texts to labels, loralet": our_predict,
    "texts to labels, loralet, fp32": lambda t: our_predict(t, "fp32"),
    "fitting TF-IDF + linear SVM": peer_words,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rows", type=int, default=1000)
    arguments = parser.parse_args()
    result = CONTENDERS[arguments.name](Task(arguments.data, arguments.model, arguments.steps, arguments.rows))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
