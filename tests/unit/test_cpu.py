"""The CPU's name, vendor and features: read from Linux's description, and equal to what torch reports."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from loralet.cpu import AMD, ON_X86, cpu_features, cpu_model, cpu_vendor

GENOA = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu fma avx2 f16c avx512f avx512bw avx512_bf16 amx_tile amx_bf16

processor\t: 1
cpu family\t: 26
model\t\t: 1
model name\t: another
flags\t\t: fpu
"""
GRAVITON = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd bf16\nCPU part\t: 0xd40\n"


@pytest.fixture
def described(tmp_path: Path) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(GENOA, encoding="utf-8")
    return path


def test_the_model_has_family_and_model_numbers(described: Path) -> None:
    assert cpu_model(described) == "AMD EPYC (family 25, model 17)"
    described.write_text("model name\t: Some CPU\n", encoding="utf-8")
    assert cpu_model(described) == "Some CPU"


def test_features_have_the_names_of_the_compilers_options(described: Path) -> None:
    expected = {"fpu", "fma", "avx2", "f16c", "avx512f", "avx512bw", "avx512bf16", "amx-tile", "amx-bf16"}
    assert cpu_features(described) == expected


def test_a_description_without_a_model_name_is_read(described: Path) -> None:
    described.write_text(GRAVITON, encoding="utf-8")
    assert cpu_features(described) == {"fp", "asimd", "bf16"}
    assert cpu_model(described)


def test_the_vendor_is_that_of_the_first_core(described: Path, tmp_path: Path) -> None:
    assert cpu_vendor(described) == AMD
    described.write_text("vendor_id\t: GenuineIntel\n", encoding="utf-8")
    assert cpu_vendor(described) == "GenuineIntel"
    described.write_text(GRAVITON, encoding="utf-8")
    assert cpu_vendor(described) == cpu_vendor(tmp_path / "missing") == ""


def test_other_systems_ask_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"avx2": True, "fma3": True, "avx512_f": True, "amx_bf16": False, "num_sockets": 1, "cpu_name": "CPU"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: report, raising=False)
    assert cpu_features(tmp_path / "missing") == {"avx2", "fma", "avx512f"}
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert cpu_features(tmp_path / "missing") == frozenset()
    assert isinstance(cpu_model(tmp_path / "missing"), str)


@pytest.mark.skipif(not ON_X86, reason="torch names the features of x86 CPUs differently from others")
@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="this release of torch reports no CPU features")
def test_features_match_torch() -> None:
    report = torch.cpu.get_capabilities()
    names = {"avx2": "avx2", "fma": "fma3", "f16c": "f16c", "avx512bf16": "avx512_bf16", "amx-bf16": "amx_bf16"}
    names |= {f"avx512{part}": f"avx512_{part}" for part in ("f", "bw", "dq", "vl")}
    assert {ours: ours in cpu_features() for ours in names} == {ours: report[theirs] for ours, theirs in names.items()}
