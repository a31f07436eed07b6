"""How to use a classifier: commands and Python code with the path of its run folder."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from loralet.runs.results import DataFacts
from loralet.runs.run import HYBRID, Role


@dataclass(frozen=True)
class Use:
    """A use of the classifier: a sentence, and commands or code."""

    text: str
    code: str


def uses(folder: str, data: DataFacts, role: Role) -> tuple[Use, ...]:
    """Prediction on the command line and in Python, evaluation and export.

    Args:
        folder: path of the run folder, as the report was asked for.
        data: the training data.
        role: role of the classifier.
    """
    quoted = json.dumps(folder, ensure_ascii=False)
    path, column = shlex.quote(folder), next(iter(data.text_columns), "text")
    flag = f" --text-column {shlex.quote(column)}" if len(data.text_columns) == 1 and column != "text" else ""
    omitted = " This export contains only the encoder, not the linear model on words." if role == HYBRID else ""
    return (
        Use(
            "Classify texts, or the rows of a table; the output has its columns, the label and the probabilities:",
            f'loralet predict {path} "A text to classify."\n'
            f"loralet predict {path} --file rows.csv{flag} --format csv > labelled.csv",
        ),
        Use(
            "In Python:",
            "from loralet import TextClassifier\n\n"
            f"classifier = TextClassifier.load({quoted})\n"
            'texts = ["A text to classify."]\n'
            "print(classifier.predict(texts), classifier.predict_proba(texts))",
        ),
        Use(
            "Measure it on other labelled rows:",
            f"loralet evaluate {path} labelled-rows.csv{flag}",
        ),
        Use(
            "Copy it to another machine: one folder with the encoder, which loads without the hub or a cache:",
            f"loralet export {path} --to safetensors-bundle --out classifier",
        ),
        Use(
            f"Use it in transformers (--to onnx for ONNX Runtime).{omitted}",
            f"loralet export {path} --to hf --out classifier-hf",
        ),
    )
