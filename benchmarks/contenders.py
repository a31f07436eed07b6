"""One contender's work in a process of its own; prints one line of JSON. Called by speed.py.

python benchmarks/contenders.py NAME DATA MODEL --steps 150
"""

from __future__ import annotations

import argparse
import json
import os
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
    """Rows a second, and the largest resident memory of this process."""
    from loralet.runs.folder import peak_memory

    return {"rows_per_second": rows / seconds, "seconds": seconds, "peak_bytes": peak_memory()}


# ---- peers: transformers and PEFT ----


def peer_rows(split: Any, tokenizer: Any, padded: bool) -> Any:
    """A split as the Trainer takes it."""
    from torch.utils.data import Dataset

    class Rows(Dataset):  # type: ignore[type-arg]
        def __init__(self) -> None:
            self.encoded = tokenizer(
                split.texts.to_pylist(), truncation=True, max_length=LENGTH, padding="max_length" if padded else False
            )
            self.labels = split.labels.tolist()

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, i: int) -> dict[str, Any]:
            return {
                "input_ids": self.encoded["input_ids"][i],
                "attention_mask": self.encoded["attention_mask"][i],
                "labels": self.labels[i],
            }

    return Rows()


def peer_trainer(
    task: Task,
    padded: bool,
    lora: bool,
    bf16: bool,
    evaluate_every: int | None,
    rate: float | None = None,
    dropout: float = 0.1,
    seed: int = 0,
) -> tuple[Any, dict[str, float], Any]:
    """A Trainer of the mission's recipe, its timing filled in as it trains, and the validation rows."""
    import numpy as np
    import transformers
    from peft import LoraConfig, get_peft_model

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    corpus = load(task)
    tokenizer = transformers.AutoTokenizer.from_pretrained(task.model)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        task.model, num_labels=len(corpus.dataset.labels)
    )
    if lora:
        model = get_peft_model(
            model,
            LoraConfig(
                task_type="SEQ_CLS", r=16, lora_alpha=64, lora_dropout=dropout, target_modules=["query", "value"]
            ),
        )
    clock: dict[str, float] = {}

    class Clock(transformers.TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            clock["begin"] = time.perf_counter()

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            clock["end"] = time.perf_counter()

    arguments = transformers.TrainingArguments(
        output_dir=os.environ["BENCH_FOLDER"], max_steps=task.steps, per_device_train_batch_size=BATCH, per_device_eval_batch_size=64,
        learning_rate=rate or (5e-5 if lora else 3e-4), seed=seed, use_cpu=True, bf16=bf16, report_to=[],
        save_strategy="no", logging_strategy="no", disable_tqdm=True,
        train_sampling_strategy="random" if padded else "group_by_length", dataloader_pin_memory=False,
        eval_strategy="steps" if evaluate_every else "no", eval_steps=evaluate_every,
    )  # fmt: skip
    sample, validation = (peer_rows(split, tokenizer, padded) for split in (corpus.sample, corpus.validation))
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=peer_rows(corpus.train, tokenizer, padded), eval_dataset=sample,
        processing_class=tokenizer, callbacks=[Clock()],
        compute_metrics=lambda p: {"accuracy": float((np.argmax(p.predictions, -1) == p.label_ids).mean())},
    )  # fmt: skip
    return trainer, clock, validation


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


def peer_onnx(task: Task) -> dict[str, float]:
    """Our own graph under ONNX Runtime, in batches of like length, tokenising included: the strongest form of that peer."""
    from pathlib import Path

    from loralet.artifacts.folder import Artifact
    from loralet.artifacts.merge import merge
    from loralet.data.tokens import tokenise
    from loralet.export.onnx import onnx_logits, write_onnx
    from loralet.hub.backbone import load_backbone

    backbone, texts = load_backbone(task.model), load(task).validation.texts
    state, _, _ = our_state(task, [our_run(task, 16, 64.0)], "fp32")
    artifact = Artifact(
        id="peer", role="lora", labels=("0", "1", "2", "3"), head="pooler", max_length=LENGTH, rank=16, alpha=64.0, dropout=0.0,
        targets=("query", "value"), scaling="alpha/r", backbone=task.model, backbone_fingerprint=backbone.fingerprint, architecture="bert",
        data_fingerprint="", tensors=state.pack.extract(state.parameters, 0),
    )  # fmt: skip
    path = Path(os.environ["BENCH_FOLDER"]) / "peer.onnx"
    write_onnx(merge(artifact, backbone), path)
    onnx_logits(path, tokenise(texts.slice(0, 64), backbone.tokenizer, LENGTH))
    started = time.perf_counter()
    onnx_logits(path, tokenise(texts, backbone.tokenizer, LENGTH)).softmax(-1).tolist()
    return measured(len(texts), time.perf_counter() - started)


# ---- time to an accuracy ----


def words_to(task: Task) -> dict[str, float]:
    from loralet.studies.baselines import LinearWords

    corpus = load(task)
    started = time.perf_counter()
    fitted = LinearWords.fit(corpus.train, 0)
    seconds = time.perf_counter() - started
    right = fitted.predict(corpus.validation) == corpus.validation.labels
    return measured(len(corpus.train), seconds) | {"accuracy": float(right.mean())}


def fasttext_to(task: Task) -> dict[str, float]:
    """fastText with word pairs, 5 epochs at learning rate 0.5, as its authors' text classification example has it."""
    from pathlib import Path

    import fasttext

    corpus = load(task)
    path = Path(os.environ["BENCH_FOLDER"]) / "fasttext.txt"
    rows = zip(corpus.train.texts.to_pylist(), corpus.train.labels.tolist(), strict=True)
    path.write_text(
        "".join(f"__label__{label} {' '.join(text.lower().split())}\n" for text, label in rows), encoding="utf-8"
    )
    started = time.perf_counter()
    model = fasttext.train_supervised(str(path), epoch=5, lr=0.5, wordNgrams=2, thread=os.cpu_count(), verbose=0)
    seconds = time.perf_counter() - started
    texts = [" ".join(text.lower().split()) for text in corpus.validation.texts.to_pylist()]
    found = [int(labels[0].removeprefix("__label__")) for labels in model.predict(texts)[0]]
    right = sum(a == b for a, b in zip(found, corpus.validation.labels.tolist(), strict=True))
    return measured(len(corpus.train), seconds) | {"accuracy": right / len(texts)}


def our_to(task: Task, accuracy: float) -> dict[str, float]:
    """``loralet train`` with its defaults, stopped at the first check that reaches the accuracy on a sample of 512 validation rows.

    The seconds are those of tokenising, training and its checks; the accuracy is on all validation rows.
    """
    from loralet.config import LoraOptions
    from loralet.data.tokens import tokenise
    from loralet.events import Checked, Stepped
    from loralet.hub.backbone import load_backbone
    from loralet.inference.evaluation import accuracy_and_loss, logits_of
    from loralet.training.loop import train
    from loralet.training.packs import lora_run

    lora, seen, texts = LoraOptions(), 0, load(task).train.texts
    run = lora_run(task.model, lora.rank, lora.alpha, lora.dropout, lora.targets, lora.scaling, lora.lr, 0)
    state, rows, options = our_state(task, [run], "auto", steps=3 * -(-len(texts) // BATCH), eval_every=EVERY)
    tokenizer = load_backbone(task.model).tokenizer
    started = time.perf_counter()
    tokenise(texts, tokenizer, LENGTH)
    for event in train(state, rows.train, rows.sample, options, 0):
        seen += event.rows if isinstance(event, Stepped) else 0
        if isinstance(event, Checked) and event.accuracy >= accuracy:
            break
    seconds = time.perf_counter() - started
    logits = logits_of(state.pack.logits(state.parameters), rows.validation.tokens, 1)
    return measured(seen, seconds) | {"accuracy": accuracy_and_loss(logits, rows.validation.labels)[0][0]}


# ---- ours ----


def load(task: Task) -> Any:
    from loralet.config import DataOptions
    from loralet.training.corpus import load_corpus

    return load_corpus(task.data, DataOptions(), SAMPLE)


def our_run(task: Task, rank: int, alpha: float, dropout: float = 0.0) -> Any:
    from loralet.training.packs import lora_run

    return lora_run(task.model, rank, alpha, dropout, ("query", "value"), "alpha/r", 1e-3, 0)


def our_state(
    task: Task, runs: list[Any], precision: str, steps: int | None = None, eval_every: int = 10**9
) -> tuple[Any, Any, Any]:
    import torch

    from loralet.backends.device import choose_dtype, place
    from loralet.config import TrainingOptions
    from loralet.hub.backbone import load_backbone
    from loralet.training.corpus import corpus_rows
    from loralet.training.loop import TrainingState
    from loralet.training.packs import build_pack

    corpus, backbone, device = load(task), load_backbone(task.model), torch.device("cpu")
    weights = place(backbone.weights, device, choose_dtype(precision, device))
    options = TrainingOptions(steps=steps or task.steps, eval_every=eval_every)
    pack = build_pack(runs, weights, backbone.shape, len(corpus.dataset.labels), options.head, options.head_dropout)
    return TrainingState.start(pack, runs, options.weight_decay), corpus_rows(corpus, backbone, LENGTH), options


def our_train(
    task: Task, grid: bool = False, precision: str = "auto", evaluate_every: int | None = None, dropout: float = 0.0
) -> dict[str, float]:
    from loralet.events import Stepped
    from loralet.training.loop import train

    runs = [our_run(task, rank, alpha, dropout) for rank, alpha in (GRID if grid else [(16, 64.0)])]
    state, rows, options = our_state(task, runs, precision, eval_every=evaluate_every or 10**9)
    started, seen = time.perf_counter(), 0
    for event in train(state, rows.train, rows.sample, options, 0):
        seen += event.rows * len(event.runs) if isinstance(event, Stepped) else 0
    return measured(seen, time.perf_counter() - started)


def our_evaluate(task: Task, precision: str = "auto") -> dict[str, float]:
    from loralet.inference.evaluation import logits_of

    state, rows, _ = our_state(task, [our_run(task, 16, 64.0)], precision)
    forward = state.pack.logits(state.parameters)
    logits_of(forward, rows.validation.tokens, 1)
    started = time.perf_counter()
    logits_of(forward, rows.validation.tokens, 1)
    return measured(len(rows.validation), time.perf_counter() - started)


def our_predict(task: Task, precision: str = "auto") -> dict[str, float]:
    """Texts to probabilities, tokenising included, as the pipeline does it."""
    from loralet.data.tokens import tokenise
    from loralet.hub.backbone import load_backbone
    from loralet.inference.evaluation import logits_of

    state, _, _ = our_state(task, [our_run(task, 16, 64.0)], precision)
    forward, tokenizer, texts = (
        state.pack.logits(state.parameters),
        load_backbone(task.model).tokenizer,
        load(task).validation.texts,
    )
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
    "loralet, pack of nine with a check every 50 steps (rows x runs)": lambda t: our_train(
        t, grid=True, evaluate_every=EVERY
    ),
    "evaluation, peer b": peer_evaluate,
    "evaluation, loralet": our_evaluate,
    "evaluation, loralet, fp32": lambda t: our_evaluate(t, "fp32"),
    "texts to labels, transformers pipeline": peer_pipeline,
    "texts to labels, loralet": our_predict,
    "texts to labels, loralet, fp32": lambda t: our_predict(t, "fp32"),
    "texts to labels, ONNX Runtime": peer_onnx,
    "fitting TF-IDF + linear SVM": words_to,
    "fitting fastText, word pairs": fasttext_to,
    "loralet with its defaults, to 85 % of a sample": lambda t: our_to(t, 0.85),
    "loralet with its defaults, to 89 % of a sample": lambda t: our_to(t, 0.89),
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
