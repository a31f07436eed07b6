"""``loralet export``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from loralet.artifacts.folder import Artifact
from loralet.commands.push import push_folder
from loralet.commands.threads import set_threads
from loralet.config import ExportConfig
from loralet.data.files import Columns
from loralet.data.sources import Split
from loralet.errors import CheckError, RunError
from loralet.export.calibration import calibration_rows
from loralet.export.export import Exported, export_bundle, export_hf, export_onnx
from loralet.export.onnx import require_onnx
from loralet.inference.predictor import find_adapter, open_adapter, ready
from loralet.runs.folder import new_run_folder


def export(config: ExportConfig) -> None:
    """Write a run for other programs, say how large it is, and push it if asked to."""
    set_threads(config.threads)
    out = new_run_folder(config.out, "export")
    if config.to == "onnx":
        require_onnx()
    adapter = find_adapter(Path(config.folder), config.run)
    artifact, backbone = open_adapter(adapter, config.any_backbone, config.label_names, config.backbone)
    classifier = ready(artifact, backbone)
    if config.to == "hf":
        done = export_hf(artifact, classifier, out)
    elif config.to == "safetensors-bundle":
        done = export_bundle(artifact, classifier, out)
    else:
        done = export_onnx(artifact, classifier, out, _calibration(config, adapter, artifact), config.int8)
    _say(done)
    if done.refused:
        raise CheckError(done.refused)
    if config.push:
        push_folder(out, config.push, config.private, config.dry_run)


def _calibration(config: ExportConfig, adapter: Path, artifact: Artifact) -> Split | None:
    """Rows to measure on; the gate cannot do without, the comparison with torch can."""
    try:
        return calibration_rows(
            adapter, artifact, config.data, Columns(config.text_column, config.label_column, config.columns)
        )
    except RunError:
        if config.int8 or config.data:
            raise
        return None


def _say(done: Exported) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{done.report['run']} as {done.report['to']}: {done.folder}", markup=False)
    for name, size in done.report["bytes"].items():
        console.print(f"  {name:<24} {size:>12,} bytes", markup=False)
    if "largest_difference" in done.report:
        console.print(
            f"largest difference of a logit to torch: {done.report['largest_difference']:.1e} on {done.report['rows_compared']:,} rows"
        )
    if done.report.get("int8", {}).get("kept"):
        gate = done.report["int8"]
        console.print(
            f"accuracy on {gate['rows']:,} rows: fp32 {gate['accuracy_fp32']:.4f}, int8 {gate['accuracy_int8']:.4f}"
        )
