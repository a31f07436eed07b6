"""The choice of the backend: by option, environment variable, machine and model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from backends import each_native
from command_line import command
from models import make_pair
from packs import make_weights

from loralet import TextClassifier
from loralet.adapters.adapter import Adapter
from loralet.adapters.layout import PackShape
from loralet.adapters.pack import Pack
from loralet.backends import choice
from loralet.backends import torch as torch_backend
from loralet.backends.base import Backend
from loralet.backends.choice import SLOWDOWN, Chosen, choose_backend, choose_dtype
from loralet.backends.info import VARIABLE, BackendInfo
from loralet.backends.native import backend as native_backend
from loralet.backends.native import support
from loralet.backends.native.backend import NativeBackend, NativeUnavailable
from loralet.backends.native.bindings import Kernels
from loralet.backends.torch import TorchBackend
from loralet.config import ComputeOptions, DataOptions, GridOptions, StudyConfig, TrainingOptions
from loralet.cpu import AMD
from loralet.data.columns import memory_dataset, text_column
from loralet.errors import ConfigError
from loralet.events import Event, Stage
from loralet.inference import engine
from loralet.models.table import EncoderTable
from loralet.runs.environment import read_environment
from loralet.studies.plan import plan_study
from loralet.studies.study import prepare
from loralet.tasks.single_label import SingleLabel
from loralet.training.corpus import settle
from loralet.training.session import open_session

TABLE = EncoderTable(layers=2, width=32, heads=2, feed_forward=64, vocabulary=100, positions=40)
WHY = "no C compiler found"
CPU = torch.device("cpu")


class Native(TorchBackend):
    """Replaces the native backend on machines without it; computes with torch under that name."""

    name = "native"
    refusal: str | None = None

    def __init__(self) -> None:
        super().__init__(CPU)
        self.asked: list[tuple[EncoderTable, torch.dtype, str]] = []

    def supports(self, table: EncoderTable, dtype: torch.dtype, method: str = "lora") -> str | None:
        self.asked.append((table, dtype, method))
        return self.refusal

    def info(self, dtype: torch.dtype, reason: str = "") -> BackendInfo:
        return replace(super().info(dtype, reason), instructions="AVX2")


class Unavailable:
    def __init__(self) -> None:
        raise NativeUnavailable(WHY)


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> type[Native]:
    """A native backend that is available and supports everything, unless its class sets a reason."""

    class Own(Native):
        pass

    monkeypatch.setattr(choice, "NativeBackend", Own)
    monkeypatch.setattr(engine, "native_inference", lambda *arguments: None)
    monkeypatch.setattr(choice, "TorchBackend", lambda: TorchBackend(CPU))
    return Own


@pytest.fixture
def _unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "NativeBackend", Unavailable)
    monkeypatch.setattr(choice, "TorchBackend", lambda: TorchBackend(CPU))


def test_this_machine_uses_native_or_reports_a_reason() -> None:
    chosen = choose_backend(TABLE)
    plain = TorchBackend()
    assert isinstance(chosen.backend, Backend)
    if plain.device.type != "cpu":
        assert (chosen.info.name, chosen.info.reason) == ("torch", "")
        return
    try:
        expected = NativeBackend().info(chosen.dtype)
    except NativeUnavailable as error:
        expected = plain.info(chosen.dtype, str(error))
    assert chosen.info == expected
    assert (chosen.info.name == "native") == (chosen.info.reason == "")


def test_native_is_the_first_choice_on_a_cpu(native: type[Native]) -> None:
    chosen = choose_backend(TABLE, "fp32")
    assert isinstance(chosen.backend, native)
    assert chosen.backend.asked == [(TABLE, torch.float32, "lora")]
    assert (chosen.info.name, chosen.info.dtype, chosen.info.reason) == ("native", "fp32", "")
    assert choose_backend(TABLE, "fp32", "native").info == chosen.info


def test_torch_is_used_on_request(native: type[Native], monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_backend(TABLE, wanted="torch").info == TorchBackend(CPU).info(choose_dtype("auto", TorchBackend(CPU)))
    monkeypatch.setenv(VARIABLE, "native")
    assert choose_backend(TABLE, wanted="torch").info.name == "torch", "the option takes precedence over the variable"


def test_the_variable_replaces_auto(native: type[Native], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "torch")
    assert choose_backend(TABLE).info.name == "torch"
    assert choose_backend(TABLE).info.reason == ""
    assert choose_backend(TABLE, wanted="native").info.name == "native"
    for value in ("native", "auto", ""):
        monkeypatch.setenv(VARIABLE, value)
        assert choose_backend(TABLE).info.name == "native"


def test_an_invalid_variable_is_reported(native: type[Native], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "gpu")
    with pytest.raises(ConfigError, match=r"^LORALET_BACKEND is 'gpu': it must be one of auto, native, torch$"):
        choose_backend(TABLE)
    assert choose_backend(TABLE, wanted="torch").info.name == "torch", "the variable is not read if an option is set"


@pytest.mark.usefixtures("_unavailable")
def test_without_kernels_torch_reports_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = choose_backend(TABLE, "fp32")
    assert (chosen.info.name, chosen.info.reason) == ("torch", WHY)
    assert chosen.announcement == f"backend: torch: {WHY}"
    with pytest.raises(ConfigError, match=rf"^--backend native: {WHY}$"):
        choose_backend(TABLE, wanted="native")
    monkeypatch.setenv(VARIABLE, "native")
    with pytest.raises(ConfigError, match=rf"^LORALET_BACKEND=native: {WHY}$"):
        choose_backend(TABLE)


@pytest.mark.usefixtures("_unavailable")
def test_the_slowdown_is_that_of_training_which_the_kernels_would_compute() -> None:
    assert choose_backend(TABLE, training=True).info.reason == f"{WHY}; {SLOWDOWN}"
    assert choose_backend(TABLE, methods=["dora"], training=True).info.reason == WHY
    assert choose_backend(replace(TABLE, width=TABLE.width + 1), training=True).info.reason == WHY


@pytest.mark.usefixtures("_unavailable")
def test_a_prediction_does_not_announce_the_speed_of_training(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = command(place, *TRAIN, "--precision", "fp32", "--out", "slow")
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(engine, "native_inference", lambda *arguments: None)
    done = command(place, "predict", "slow", "a b")
    assert done.returncode == 0, done.stderr
    assert announced(done.stderr) == [f"· backend: torch: {WHY}"]


def test_a_model_that_the_kernels_do_not_support(native: type[Native], monkeypatch: pytest.MonkeyPatch) -> None:
    native.refusal = "width 30 is not a multiple of 32"
    words = f"the native backend cannot be used: {native.refusal}"
    chosen = choose_backend(TABLE, "fp32")
    assert (chosen.info.name, chosen.announcement) == ("torch", f"backend: torch: {words}")
    with pytest.raises(ConfigError, match=rf"^--backend native: {words}$"):
        choose_backend(TABLE, wanted="native")
    monkeypatch.setenv(VARIABLE, "native")
    with pytest.raises(ConfigError, match=rf"^LORALET_BACKEND=native: {words}$"):
        choose_backend(TABLE)


def test_support_of_every_adapter_method_is_checked(native: type[Native], monkeypatch: pytest.MonkeyPatch) -> None:
    def supports(self: Native, table: EncoderTable, dtype: torch.dtype, method: str = "lora") -> str | None:
        return "it does not know the adapter method other" if method == "other" else None

    monkeypatch.setattr(native, "supports", supports)
    assert choose_backend(TABLE, methods=("lora",)).info.name == "native"
    chosen = choose_backend(TABLE, methods=("lora", "other"))
    assert (chosen.info.name, chosen.info.reason.rpartition(": ")[2]) == (
        "torch",
        "it does not know the adapter method other",
    )


@each_native
def test_the_kernels_have_no_dora_and_torch_takes_it(backend: NativeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "NativeBackend", lambda: backend)
    monkeypatch.setattr(choice, "TorchBackend", lambda: TorchBackend(CPU))
    words = "the native backend cannot be used: it does not know the adapter method dora"
    assert choose_backend(TABLE, "fp32").info.name == "native"
    chosen = choose_backend(TABLE, "fp32", methods=["dora"])
    assert (chosen.info.name, chosen.announcement) == ("torch", f"backend: torch: {words}")
    with pytest.raises(ConfigError, match=rf"^--backend native: {words}$"):
        choose_backend(TABLE, "fp32", "native", ["dora"])
    weights = make_weights(TABLE)
    pack = Pack(PackShape(TABLE, 4), [Adapter(2, 1.0, 0.0, ("layers.0.query",), 0)], "dora")
    with pytest.raises(ValueError, match="cannot compute this pack: it does not know the adapter method dora"):
        backend.load(weights, TABLE, torch.float32).program(pack)


def test_a_gpu_is_used_through_torch(native: type[Native], monkeypatch: pytest.MonkeyPatch) -> None:
    class Gpu(TorchBackend):
        def __init__(self) -> None:
            super().__init__(torch.device("cuda"))

        def info(self, dtype: torch.dtype, reason: str = "") -> BackendInfo:
            return BackendInfo("torch", "Some GPU", "", "fp32", 2, reason)

    monkeypatch.setattr(choice, "TorchBackend", Gpu)
    chosen = choose_backend(TABLE, "fp32")
    assert isinstance(chosen.backend, Gpu)
    assert chosen.announcement == "backend: torch, fp32, Some GPU"
    assert choose_backend(TABLE, "fp32", "native").info.name == "native", "the CPU kernels are available on request"


@pytest.mark.parametrize(
    ("info", "line"),
    [
        (BackendInfo("native", "cpu", "AVX2", "fp32", 2), "native, AVX2, fp32, 2 threads"),
        (BackendInfo("native", "cpu", "AVX-512 BF16", "bf16", 1), "native, AVX-512 BF16, bf16, 1 thread"),
        (BackendInfo("torch", "cpu", "", "fp32", 2), "torch, fp32, 2 threads"),
        (BackendInfo("torch", "Some GPU", "", "bf16", 2), "torch, bf16, Some GPU"),
        (BackendInfo("torch", "cpu", "", "fp32", 2, WHY), f"torch: {WHY}"),
    ],
)
def test_a_backend_in_one_line(info: BackendInfo, line: str) -> None:
    assert str(info) == line
    assert Chosen(TorchBackend(CPU), torch.float32, info).announcement == f"backend: {line}"


INTEL = "GenuineIntel"


def described(monkeypatch: pytest.MonkeyPatch, vendor: str, *features: str) -> None:
    """Let the CPU have this vendor and these features."""
    for module in (support, torch_backend):
        monkeypatch.setattr(module, "cpu_vendor", lambda: vendor)
    monkeypatch.setattr(torch_backend, "cpu_features", lambda: set(features))


@pytest.mark.parametrize(
    ("vendor", "features", "dtype"),
    [
        (AMD, {"avx512bf16"}, torch.bfloat16),
        (INTEL, {"avx512bf16"}, torch.float32),
        (INTEL, {"avx512bf16", "amx-bf16"}, torch.bfloat16),
        (AMD, {"avx2"}, torch.float32),
        ("", {"bf16"}, torch.float32),
    ],
)
def test_auto_is_bf16_in_torch_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, native: type[Native], vendor: str, features: set[str], dtype: torch.dtype
) -> None:
    described(monkeypatch, vendor, *features)
    assert choose_dtype("auto", TorchBackend(CPU)) == choose_backend(TABLE, wanted="torch").dtype == dtype
    assert choose_backend(TABLE, "fp32", "torch").dtype == torch.float32
    assert choose_backend(TABLE, "bf16").dtype == torch.bfloat16
    assert choose_backend(TABLE, "bf16", "torch").info.dtype == "bf16"


@pytest.mark.parametrize(
    ("instructions", "vendor", "dtype"),
    [
        ("amx", INTEL, torch.bfloat16),
        ("avx512-bf16", AMD, torch.bfloat16),
        ("avx512-bf16", INTEL, torch.float32),
        ("avx512-bf16", "", torch.float32),
        ("avx512", AMD, torch.float32),
        ("avx2", AMD, torch.float32),
        ("portable", AMD, torch.float32),
        ("amx-emulated", AMD, torch.float32),
    ],
)
def test_auto_is_bf16_where_the_instruction_set_in_use_computes_it_faster(
    monkeypatch: pytest.MonkeyPatch, instructions: str, vendor: str, dtype: torch.dtype
) -> None:
    """Whatever else the CPU has."""
    described(monkeypatch, vendor, "avx512bf16", "amx-bf16")
    kernels = Kernels.__new__(Kernels)
    kernels.instructions, kernels.note = instructions, ""
    monkeypatch.setattr(native_backend, "load_kernels", lambda name: kernels)
    monkeypatch.setattr(choice, "TorchBackend", lambda: TorchBackend(CPU))
    chosen = choose_backend(TABLE)
    assert (chosen.backend.name, chosen.dtype) == ("native", dtype)
    assert choose_backend(TABLE, "fp32").dtype == torch.float32
    assert choose_backend(TABLE, "bf16").dtype == torch.bfloat16


TEXTS = [" ".join(pair) for pair in zip("abcdefgh" * 3, "hgfedcba" * 3, strict=True)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("choice")
    for name in ("one", "two"):
        make_pair(folder / name, seed=len(name))
    rows = [f"{text},{'no' if i % 2 else 'yes'}" for i, text in enumerate(TEXTS)]
    (folder / "rows.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return folder


TRAIN = ("train", "rows.csv", "--model", "one", "--steps", "2", "--batch-size", "8")


@pytest.mark.usefixtures("_unavailable")
def test_an_unavailable_native_backend_is_one_line_and_status_2(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = command(place, *TRAIN, "--quiet", "--backend", "native", "--out", "refused")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [f"loralet: --backend native: {WHY}"]
    monkeypatch.setenv(VARIABLE, "cuda")
    done = command(place, *TRAIN, "--quiet", "--out", "refused")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["loralet: LORALET_BACKEND is 'cuda': it must be one of auto, native, torch"]
    assert not (place / "refused").exists()
    done = command(place, *TRAIN, "--backend", "cuda")
    assert done.returncode == 2
    assert all(word in done.stderr for word in ("cuda", "auto", "native", "torch"))


def announced(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if "backend: " in line]


@pytest.mark.usefixtures("_unavailable")
def test_the_fallback_is_announced_once_and_recorded(place: Path) -> None:
    done = command(place, *TRAIN, "--precision", "fp32", "--out", "fallback")
    assert done.returncode == 0, done.stderr
    assert announced(done.stderr) == [f"· backend: torch: {WHY}; {SLOWDOWN}"]
    (recorded,) = read_environment(place / "fallback").backends
    assert recorded.model == "one"
    assert recorded.backend == BackendInfo("torch", "cpu", "", "fp32", torch.get_num_threads(), f"{WHY}; {SLOWDOWN}")
    events = [json.loads(line) for line in (place / "fallback" / "metrics.jsonl").read_text().splitlines()]
    stages = [event["text"] for event in events if event["event"] == "Stage"]
    assert stages.count(f"backend: torch: {WHY}; {SLOWDOWN}") == 1


def test_the_first_choice_is_announced_once_and_recorded(place: Path, native: type[Native]) -> None:
    done = command(place, *TRAIN, "--precision", "fp32", "--threads", "2", "--out", "first")
    assert done.returncode == 0, done.stderr
    assert announced(done.stderr) == ["· backend: native, AVX2, fp32, 2 threads"]
    found = read_environment(place / "first")
    assert [session.backend for session in found.backends] == [BackendInfo("native", "cpu", "AVX2", "fp32", 2)]
    assert found.threads == 2
    assert "backend = " in (place / "first" / "config.toml").read_text()
    measured = command(place, "evaluate", "first", "rows.csv", "--format", "json", "--threads", "1")
    assert json.loads(measured.stdout)["backend"] == "native, AVX2, fp32, 1 thread"
    measured = command(
        place, "evaluate", "first", "rows.csv", "--format", "json", "--threads", "1", "--backend", "torch"
    )
    assert json.loads(measured.stdout)["backend"] == "torch, fp32, 1 thread"


def test_each_model_of_a_study_has_a_backend(
    place: Path, native: type[Native], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    config = StudyConfig(
        "rows.csv",
        grid=GridOptions(("one", "two"), (2,), (8.0,), default=False),
        compute=ComputeOptions(precision="fp32"),
    )
    events: list[Event] = []
    prepared = prepare(plan_study(config), events.append)
    assert [session.model for session in prepared.backends] == ["one", "two"]
    assert {session.backend.name for session in prepared.backends} == {"native"}
    lines = [event.text for event in events if isinstance(event, Stage) and event.text.startswith("backend: ")]
    assert len(lines) == 2


def test_methods_with_the_same_backend_share_its_weights_and_output_line(place: Path, native: type[Native]) -> None:
    numbers = np.arange(len(TEXTS)) % 2
    corpus = settle(memory_dataset(text_column(TEXTS), numbers, SingleLabel(("no", "yes"))), DataOptions(), 8)
    events: list[Event] = []
    options = (TrainingOptions(), DataOptions(), ComputeOptions(precision="fp32"), events.append)
    session = open_session(str(place / "one"), corpus, *options, methods=("lora", "other"))
    assert session.loaded["lora"] is session.loaded["other"]
    lines = [event.text for event in events if isinstance(event, Stage) and event.text.startswith("backend: ")]
    assert len(lines) == len(session.backends) == 1


@pytest.mark.usefixtures("_unavailable")
def test_the_classifier_has_the_same_option(place: Path) -> None:
    labels = ["no", "yes"] * (len(TEXTS) // 2)
    options = {"rank": 2, "steps": 2, "batch_size": 8}
    with pytest.raises(ConfigError, match=rf"^--backend native: {WHY}$"):
        TextClassifier(str(place / "one"), backend="native", **options).fit(TEXTS, labels)
    with pytest.raises(ConfigError, match="backend is 'gpu': it must be one of auto, native, torch"):
        TextClassifier(str(place / "one"), backend="gpu", **options).fit(TEXTS, labels)  # type: ignore[arg-type]
    heard: list[Event] = []
    TextClassifier(str(place / "one"), backend="torch", listen=heard.append, **options).fit(TEXTS, labels)
    lines = [event.text for event in heard if isinstance(event, Stage) and event.text.startswith("backend: ")]
    assert [line.split(",")[0] for line in lines] == ["backend: torch"]


def test_a_classifier_trained_on_one_backend_loads_on_another(
    place: Path, tmp_path: Path, native: type[Native], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ["no", "yes"] * (len(TEXTS) // 2)
    fitted = TextClassifier(str(place / "one"), backend="native", rank=2, steps=2, batch_size=8).fit(TEXTS, labels)
    fitted.save(tmp_path / "adapter")
    wanted = fitted.predict_proba(TEXTS)
    monkeypatch.setattr(choice, "NativeBackend", Unavailable)
    loaded = TextClassifier.load(tmp_path / "adapter")
    assert loaded.get_params()["backend"] == "auto"
    assert (loaded.predict_proba(TEXTS) == wanted).all()


@pytest.mark.usefixtures("_unavailable")
def test_a_fallback_is_told_to_a_python_user(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    TextClassifier(str(place / "one"), steps=1).fit(TEXTS, ["no", "yes"] * (len(TEXTS) // 2))
    (record,) = [record for record in caplog.records if record.name == "loralet"]
    assert (record.levelname, record.getMessage()) == ("WARNING", f"backend: torch: {WHY}; {SLOWDOWN}")


def test_predictions_name_their_backend(place: Path, native: type[Native]) -> None:
    assert command(place, *TRAIN, "--precision", "fp32", "--out", "named").returncode == 0
    for arguments in (("predict", "named", "a b"), ("evaluate", "named", "rows.csv")):
        done = command(place, *arguments, "--threads", "1")
        assert "· backend: native, AVX2, fp32, 1 thread" in done.stderr.splitlines()
        done = command(place, *arguments, "--threads", "1", "--backend", "torch")
        assert "· backend: torch, fp32, 1 thread" in done.stderr.splitlines()
