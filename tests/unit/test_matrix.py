"""The speed matrix: its axes, the choice of contenders and of the best peer, partial results, and its tables."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matrix
import matrix_tables
import numpy as np
import pyarrow as pa
import pytest
from comparisons import (
    CHECKED,
    EVALUATION,
    GOALS,
    GROUPS,
    LABELS,
    ONE,
    WORKS,
    Cell,
    cell_of,
    compare,
    goals_of,
    is_slow,
    selected,
)
from contenders import MATRIX
from encoders import ENCODERS
from instructions import LIMITS, PORTABLE, has_bf16
from matrix import Matrix, Measurement, contenders_of, missing
from peers import LINEAR_LAYERS
from process import Arguments
from work import Measured, spread

from loralet.backends.native.build import INSTRUCTION_SETS
from loralet.data.sources import Split
from loralet.hub.bundled import FOLDER
from loralet.models.families import FAMILIES

CONTENDERS = {contender.name: contender for contenders in WORKS.values() for contender in contenders}
RATES = {"fp32": 100.0, "bf16": 400.0}
MACHINE = {
    "cpu": "a CPU",
    "cores": 2,
    "dtype": "bf16",
    "torch": "2",
    "commit": "abc",
    "instruction_sets": ["avx512-bf16", "avx2"],
}


def measured(speed: float) -> Measured:
    return {"rows_per_second": speed, "seconds": 2.0, "peak_bytes": 2.0**20}


def cell(encoder: str, instructions: str, name: str, *speeds: float) -> Cell:
    return cell_of((encoder, instructions, name), CONTENDERS[name], [measured(speed) for speed in speeds], RATES)


def some_cells() -> list[Cell]:
    return [
        cell("2x128", "avx512-bf16", "one run, loralet", 700),
        cell("2x128", "avx512-bf16", "one run, loralet, fp32", 500),
        cell("2x128", "avx512-bf16", "training, Trainer + PEFT", 50),
        cell("2x128", "avx512-bf16", "training, Trainer + PEFT, bf16", 100),
        cell("2x128", "avx2", "one run, loralet", 300),
        cell("2x128", "avx2", "training, Trainer + PEFT", 40),
        cell("12x768", "avx512-bf16", "one run, loralet", 20),
        cell("12x768", "avx512-bf16", "training, Trainer + PEFT", 10),
        cell("12x768", "avx2", "one run, loralet", 10),
        cell("12x768", "avx2", "training, Trainer + PEFT", 8),
        cell("2x128", "avx512-bf16", "texts to labels, loralet", 900),
        cell("2x128", "avx512-bf16", "texts to labels, ONNX Runtime", 200),
        cell("2x128", "avx512-bf16", "texts to labels, ONNX Runtime, int8", 300),
    ]


def test_all_names_exist_on_every_axis() -> None:
    assert CONTENDERS.keys() | {"matrix products"} == MATRIX.keys()
    assert sorted(work for group in GROUPS for work in group) == sorted(WORKS)
    assert {goal.encoder for goal in GOALS} <= ENCODERS.keys()
    assert {goal.work for goal in GOALS} <= WORKS.keys()
    assert {goal.peer for goal in GOALS} <= CONTENDERS.keys() | {""}
    assert {name for goal in GOALS for name in goal.sets} <= LIMITS.keys()
    measured = {name for name, one in INSTRUCTION_SETS.items() if not one.emulated} - {PORTABLE}
    assert measured <= LIMITS.keys()
    assert [has_bf16(name) for name in (None, "", "amx", "avx512-bf16", "avx512", "avx2")] == [True] * 4 + [False] * 2


def test_the_peer_adapts_the_linear_layers_that_loralet_adapts() -> None:
    family = FAMILIES["bert"]
    table = family.table(json.loads((FOLDER / "tiny-en" / "config.json").read_text()))
    stored = table.tensors() | family.pooling.tensors(table.width)
    every = {family.prefix + family.tensor(name).removesuffix(".weight") for name in stored if name.endswith(".weight")}
    own = {
        family.prefix + family.tensor(f"layers.{i}.{linear.name}.weight").removesuffix(".weight")
        for i in range(table.layers)
        for linear in table.linears
    }
    found = {name for name in every if re.fullmatch(LINEAR_LAYERS, name)}
    assert found == own
    assert len(own) == 6 * table.layers < len(every)


def test_chosen_rows_have_the_same_lengths_for_any_number_of_rows() -> None:
    texts = pa.chunked_array([["x" * n for n in np.random.default_rng(0).permutation(1000)]])
    split = Split("texts", texts, np.arange(1000))
    for rows in (10, 96, 1500):
        taken = spread(split, rows)
        lengths = np.sort([len(text) for text in taken.texts.to_pylist()])
        assert len(taken) == rows
        assert abs(lengths.mean() - 499.5) < 1
        np.testing.assert_allclose(lengths, (np.arange(rows) + 0.5) * 1000 / rows, atol=1)


def test_a_cell_has_medians_and_the_share_of_the_rate_in_its_precision() -> None:
    rounds = [measured(speed) | {"flops_per_row": 2e7} for speed in (1000.0, 900.0, 2000.0)]
    own = CONTENDERS["one run, loralet"]
    found = cell_of(("2x128", "avx512-bf16", own.name), own, rounds, RATES)
    assert (found["rows_per_second"], found["gflops"], found["share"]) == (1000.0, 20.0, 0.05)
    assert found["precision"] == "bf16"
    found = cell_of(("2x128", "avx2", own.name), own, rounds, RATES)
    assert (found["precision"], found["share"]) == ("fp32", 0.2)
    reported = [found | {"bf16": 0.0} for found in rounds]
    assert cell_of(("2x128", "avx512-bf16", own.name), own, reported, RATES)["share"] == 0.2


def test_the_ratio_is_that_to_the_best_peer_of_the_same_instruction_set() -> None:
    found = {(c["encoder"], c["work"], c["instructions"]): c for c in compare(some_cells(), "avx512-bf16")}
    best = found["2x128", ONE, "avx512-bf16"]
    assert (best["best_peer"], best["ratio"]) == ("training, Trainer + PEFT, bf16", 7.0)
    assert best["variants"] == {"one run, loralet, fp32": 1.4}
    assert best["goals"] == [{"peer": best["best_peer"], "ratio": 7.0, "required": 7, "target": 8}]
    other = found["2x128", ONE, "avx2"]
    assert (other["best_peer"], other["ratio"]) == ("training, Trainer + PEFT", 7.5)
    assert [(goal["required"], goal["target"]) for goal in other["goals"]] == [(4, 6)]


def test_goals_without_a_set_hold_for_the_best_one_and_goals_with_a_peer_for_that_peer() -> None:
    found = {(c["encoder"], c["work"], c["instructions"]): c for c in compare(some_cells(), "avx512-bf16")}
    assert [goal["ratio"] for goal in found["12x768", ONE, "avx512-bf16"]["goals"]] == [2.0]
    assert found["12x768", ONE, "avx2"]["goals"] == []
    assert [(g["ratio"], g["required"]) for g in found["2x128", LABELS, "avx512-bf16"]["goals"]] == [(4.5, 3), (3.0, 2)]


def test_cells_with_goals_are_those_of_their_instruction_sets() -> None:
    def works(encoder: str, instructions: str, best: str) -> list[str]:
        return [work for work in WORKS if goals_of(encoder, work, instructions, best)]

    assert works("2x128", "avx2", "avx512-bf16") == [ONE, CHECKED]
    assert works("2x128", "avx512-bf16", "avx512-bf16") == [ONE, CHECKED, LABELS]
    assert works("6x384", "amx", "amx") == [ONE, EVALUATION, LABELS]
    assert works("12x768", "avx2", "avx512-bf16") == works("4x256", "avx2", "avx2") == []


def test_a_cell_without_a_measured_peer_has_no_ratio() -> None:
    (found,) = compare([cell("4x256", "avx2", "one run, loralet", 3)], "avx2")
    assert (found["best_peer"], found["ratio"], found["goals"]) == (None, None, [])


def test_contenders_that_cannot_be_limited_run_with_the_best_set_only() -> None:
    best, other = ([c.name for c in contenders_of([LABELS], name, "avx512-bf16")] for name in ("avx512-bf16", "avx2"))
    assert [name for name in best if name not in other] == [
        "texts to labels, ONNX Runtime",
        "texts to labels, loralet, fp32",  # loralet computes in fp32 on AVX2
        "texts to labels, ONNX Runtime, int8",
        "texts to labels, OpenVINO",
    ]
    names = [c.name for c in contenders_of(GROUPS[0], "avx512-bf16", "avx512-bf16")]
    assert len(names) == len(set(names)) == 11


def test_contenders_far_behind_are_not_repeated() -> None:
    speeds = {"training, Trainer + PEFT": 40, "training, Trainer + PEFT, bf16": 100, "one run, loralet": 30}
    assert is_slow(CONTENDERS["training, Trainer + PEFT"], speeds)
    assert not is_slow(CONTENDERS["training, Trainer + PEFT, bf16"], speeds)
    assert not is_slow(CONTENDERS["one run, loralet"], speeds)
    labels = {"texts to labels, ONNX Runtime": 10, "texts to labels, OpenVINO": 100}
    assert not is_slow(CONTENDERS["texts to labels, ONNX Runtime"], labels)  # a goal of its own


def test_contenders_without_their_package_or_with_slow_bf16_are_skipped() -> None:
    peer = CONTENDERS["training, Trainer + PEFT, bf16"]
    assert missing(peer, "avx512") is None
    found = missing(peer, "avx2")
    assert found is not None
    assert found[0] == "peers in bf16 on avx2"
    absent = CONTENDERS["texts to labels, OpenVINO"]._replace(package="no_such_package")
    assert missing(absent, "avx2") == ("texts to labels, OpenVINO", "no_such_package is not installed")


def test_words_select_values_of_their_axes() -> None:
    axes = (["2x128", "4x256"], [ONE, CHECKED], ["amx", "avx2"])
    assert selected([], axes) == list(axes)
    assert selected(["avx2", "4x256", ONE, CHECKED], axes) == [["4x256"], [ONE, CHECKED], ["avx2"]]
    with pytest.raises(ValueError, match=r"sse: not one of 2x128, 4x256, one run"):
        selected(["sse"], axes)


def test_only_a_wrong_word_is_reported_as_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError("a fault of a measurement")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # main sets it
    monkeypatch.setattr(matrix, "measured_instructions", lambda: ["avx2"])
    monkeypatch.setattr(matrix, "describe_machine", lambda: MACHINE)
    monkeypatch.setattr(matrix, "measure", fail)
    command = ["matrix.py", "data", "model", "--out", str(tmp_path / "matrix.json")]
    monkeypatch.setattr("sys.argv", [*command, "--only", "sse"])
    with pytest.raises(SystemExit, match=r"^--only sse: not one of "):
        matrix.main()
    monkeypatch.setattr("sys.argv", [*command, "--only", "avx2"])
    with pytest.raises(ValueError, match=r"^a fault of a measurement$"):
        matrix.main()


def test_an_interrupted_run_keeps_alternating_measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def run(name: str, arguments: Arguments, variables: Mapping[str, str]) -> Measured:
        if name == "matrix products":
            return RATES
        if name.endswith("torch backend"):
            raise SystemExit(f"{name} failed:\nno memory")
        assert variables["LORALET_ISA"] == "avx512"
        calls.append(name)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return measured(10 + len(calls))

    monkeypatch.setattr(matrix, "run_contender", run)
    out = tmp_path / "matrix.json"
    table = Matrix(out, MACHINE, MACHINE["instruction_sets"], 3)
    arguments = Namespace(data="data", rounds=3, steps=2, rows=None, goals=False, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Measurement(table, arguments, "2x128", tmp_path).group([ONE], "avx512")
    assert calls == ["training, Trainer + PEFT", "one run, loralet", "training, Trainer + PEFT, bf16", *calls[:2]]
    report = json.loads(out.read_text(encoding="utf-8"))
    assert [found["all"] for found in report["cells"]] == [[11, 14], [12], [13]]
    assert report["skipped"] == {"2x128, avx512, one run, loralet, torch backend": "failed (no memory)"}
    assert report["comparisons"][0]["ratio"] == 12 / 13

    again = Matrix(out, MACHINE, MACHINE["instruction_sets"], 1)
    again.read()
    assert again.cells == table.cells
    with pytest.raises(SystemExit, match="another machine or commit"):
        Matrix(out, MACHINE | {"commit": "def"}, MACHINE["instruction_sets"], 1).read()


def rendered(**changes: Any) -> dict[str, Any]:
    return {
        "machine": MACHINE,
        "rounds": 3,
        "rates": {"avx512-bf16": RATES},
        "skipped": {"texts to labels, OpenVINO": "openvino is not installed"},
        "comparisons": list(compare(some_cells(), "avx512-bf16")),
    } | changes


def test_the_tables_show_goals_cells_options_and_rates() -> None:
    text = matrix_tables.matrix(rendered())
    assert "Measured by `benchmarks/matrix.py` on 2 cores of a CPU, bf16, torch 2, commit abc." in text
    assert "| 2x128 | one run | AVX-512 BF16 | Trainer + PEFT, bf16 | 7.0 | 7 | 8 |" in text
    assert "| 2x128 | one run | AVX2 | 300 rows/s | – | Trainer + PEFT | 7.5 | 1 MiB |" in text
    assert "| 2x128 | one run | AVX-512 BF16 | fp32 | 1.40 |" in text
    assert "| AVX-512 BF16 | 100 | 400 |" in text
    assert "* texts to labels, OpenVINO: openvino is not installed" in text
    assert "Not measured" not in matrix_tables.matrix(rendered(skipped={}))


def test_the_readme_shows_ratios_of_the_best_set() -> None:
    rows = matrix_tables.shown(rendered())
    assert rows == [
        ("speed of one run, 2x128, AVX-512 BF16, against Trainer + PEFT, bf16", "7.0 times"),
        ("speed of texts to labels, 2x128, AVX-512 BF16, against ONNX Runtime, int8", "3.0 times"),
    ]
