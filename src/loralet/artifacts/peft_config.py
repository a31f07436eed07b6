"""PEFT's adapter_config.json: reading it, what is not supported, and the scale of each module."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from loralet.adapters.base import AdapterMethod
from loralet.adapters.registry import METHODS
from loralet.artifacts.fields import LARGEST
from loralet.artifacts.reading import CONFIG
from loralet.errors import RunError
from loralet.records import read_json

BASE_AS_IT_IS = (True, False, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that do not change the base's weights."""
UNSUPPORTED = {
    "lora_bias": "a bias on B",
    "use_qalora": "QALoRA",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "replicated layers",
    "trainable_token_indices": "trained token embeddings",
    "target_parameters": "adapters on parameters instead of linear layers",
    "arrow_config": "Arrow routing",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "kasa_config": "KaSA",
    "use_bdlora": "block-diagonal LoRA",
}
"""Keys of adapter_config.json for variants that no adapter method supports."""
LONGEST_PATTERN, MOST_PATTERNS, MOST_REPETITIONS = 256, 4096, 3
"""Bounds of ``alpha_pattern``: characters and repetitions of a regular expression, and number of expressions."""
PATIENCE = 10.0
"""Seconds for all matches of ``alpha_pattern`` with one module. Those of 72 modules with 72 patterns take 10 ms."""


def read_config(folder: Path) -> dict[str, object]:
    """The content of adapter_config.json.

    Raises:
        RunError: it is not a JSON object.
    """
    try:
        config = read_json(folder / CONFIG)
    except ValueError as error:
        raise RunError(f"{folder / CONFIG}: not valid JSON ({error})") from error
    if not isinstance(config, dict):
        raise RunError(f"{folder / CONFIG}: a PEFT configuration must be a JSON object")
    return config


def method_of(config: Mapping[str, object]) -> AdapterMethod:
    """The adapter method of a PEFT configuration: the most specific method whose entries all match."""
    fitting = [
        m for m in METHODS.values() if all(config.get(key) == value for key, value in m.format.peft_config.items())
    ]
    return max(fitting, key=lambda method: len(method.format.peft_config))


def refusals(config: Mapping[str, object]) -> Iterator[str]:
    """Reasons why a configuration is not supported."""
    kind = config.get("peft_type")
    if kind != "LORA":
        yield f"peft_type is {kind}; only LORA is supported"
        return
    yield from _value_problems(config)
    if config.get("task_type") not in ("SEQ_CLS", None):
        yield f"task_type is {config['task_type']}; only SEQ_CLS is supported"
    if config.get("bias", "none") != "none":
        yield f"bias is {config['bias']!r}; only 'none' is supported"
    yield from (f"{key}: {what} is not supported" for key, what in UNSUPPORTED.items() if config.get(key))
    start = config.get("init_lora_weights", True)
    if not isinstance(start, (bool, str)) or start not in BASE_AS_IT_IS:
        yield (
            f"init_lora_weights is {start!r}, which changes the base's weights; "
            "convert the adapter to plain LoRA with PEFT first"
        )


def _value_problems(config: Mapping[str, object]) -> Iterator[str]:
    """Messages about values of a wrong type or out of range."""
    name, alpha, dropout = (config.get(key) for key in ("base_model_name_or_path", "lora_alpha", "lora_dropout"))
    for key, value in (("base_model_name_or_path", name), ("revision", config.get("revision"))):
        if not isinstance(value, (str, type(None))):
            yield f"{key} is {value!r}; a string is expected"
    if alpha is not None and not _is_number(alpha):
        yield f"lora_alpha is {alpha!r}; a finite number above 0 is expected"
    if dropout is not None and not (_is_number(dropout, least=0.0) and float(str(dropout)) < 1):
        yield f"lora_dropout is {dropout!r}; a number from 0 to below 1 is expected"
    for key in ("use_rslora", "use_dora"):
        if not isinstance(config.get(key), (bool, type(None))):
            yield f"{key} is {config[key]!r}; true or false is expected"
    yield from _pattern_problems(config.get("alpha_pattern"))


def _pattern_problems(patterns: object) -> Iterator[str]:
    if patterns is not None and not isinstance(patterns, dict):
        yield f"alpha_pattern is {patterns!r}; an object with the alpha of each module is expected"
    elif patterns and len(patterns) > MOST_PATTERNS:
        yield f"alpha_pattern has {len(patterns)} entries; at most {MOST_PATTERNS} are supported"
    elif patterns:
        for pattern, alpha in patterns.items():
            if not _is_number(alpha):
                yield f"alpha_pattern[{pattern!r}] is {alpha!r}; a finite number above 0 is expected"
            if reason := pattern_problem(pattern):
                yield f"alpha_pattern has {pattern[:80]!r}, {reason}"


def _is_number(value: object, least: float = 1e-30) -> bool:
    """Whether a value is a number from ``least`` to the largest of fp32."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= LARGEST


def pattern_problem(pattern: str) -> str:
    """Why a regular expression is not matched; empty if it is.

    The time of a match is bounded: no repeated groups, references and conditions, with which it can grow exponentially,
    and few repetitions, as each multiplies it by the length of the module's name.
    """
    if len(pattern) > LONGEST_PATTERN:
        return f"which is longer than {LONGEST_PATTERN} characters"
    plain = re.sub(r"\\\D", "", pattern)
    if re.search(r"\)[*+{]|\(\?(?!:)|\\\d", plain):
        return "a regular expression with repeated groups, references or conditions; write the modules' names"
    if len(re.findall(r"[*+{]", plain)) > MOST_REPETITIONS:
        return f"a regular expression with more than {MOST_REPETITIONS} repetitions; write the modules' names"
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"which is not a regular expression ({error})"
    return ""


def scale_of(config: Mapping[str, object], module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r), with alpha from the first pattern that matches the end of the module's name.

    Args:
        config: the configuration, without problems (:func:`refusals`).
        module: path of the module.
        rank: its rank.

    Raises:
        RunError: the patterns take too long.
    """
    patterns = config.get("alpha_pattern")
    found = config.get("lora_alpha") or 8
    end = time.monotonic() + PATIENCE
    for key, alpha in (patterns if isinstance(patterns, dict) else {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            found = alpha
            break
        if time.monotonic() > end:
            raise RunError(f"alpha_pattern of {CONFIG} takes too long to match; write the modules' names")
    return float(str(found)) / (math.sqrt(rank) if config.get("use_rslora") else rank)
