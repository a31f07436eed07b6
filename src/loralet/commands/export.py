"""``loralet export``."""

from __future__ import annotations

from pathlib import Path

from loralet.artifacts.artifact import Artifact
from loralet.commands.push import push_folder
from loralet.config import ExportConfig
from loralet.data.sources import Split
from loralet.errors import CheckError, ConfigError, RunError
from loralet.export.calibration import calibration_rows
from loralet.export.checkpoint import export_bundle, export_hf
from loralet.export.exported import Exported
from loralet.export.graph import require_onnx
from loralet.export.onnx import export_onnx
from loralet.inference.adapters import find_adapter
from loralet.inference.predictor import open_adapter, ready
from loralet.runs.folder import new_run_folder
from loralet.runs.sources import columns_of
from loralet.runtime import using_threads
from loralet.terminal import note, terminal


def export(config: ExportConfig) -> None:
    """Export a run, print the file sizes, and push the export if requested."""
    with using_threads(config.compute.threads):
        done = _export(config, new_run_folder(config.out, "export"))
    _say(done)
    if done.refused:
        raise CheckError(done.refused)
    if config.push:
        push_folder(done.folder, config.push, config.private, config.dry_run)


def _export(config: ExportConfig, out: Path) -> Exported:
    if config.to == "onnx":
        require_onnx()
    adapter = find_adapter(Path(config.one.folder), config.one.run)
    artifact, backbone = open_adapter(adapter, config.model)
    classifier = ready(artifact, backbone, config.compute)
    if config.to == "hf":
        graphs = config.onnx and _has_onnx()
        rows = _calibration(config, adapter, artifact) if graphs else None
        return export_hf(artifact, classifier, out, rows, graphs)
    if config.to == "safetensors-bundle":
        return export_bundle(artifact, classifier, out)
    return export_onnx(artifact, classifier, out, _calibration(config, adapter, artifact), config.int8)


def _has_onnx() -> bool:
    """Whether the ``onnx`` extra is installed; says so if it is not."""
    try:
        require_onnx()
    except ConfigError as error:
        note(f"the folder onnx/, for transformers.js and ONNX Runtime, is left out: {error}")
        return False
    return True


def _calibration(config: ExportConfig, adapter: Path, artifact: Artifact) -> Split | None:
    """Rows to compare the export with the run on; None if there are none, which only ``--int8`` requires."""
    try:
        return calibration_rows(adapter, artifact, config.data, columns_of(config.columns), config.labels_are_indices)
    except RunError:
        if config.int8 or config.data:
            raise
        return None


def _say(done: Exported) -> None:
    console = terminal(highlight=False, soft_wrap=True)
    console.print(f"{done.run} as {done.to}: {done.folder}", markup=False)
    for name, size in done.bytes.items():
        console.print(f"  {name:<28} {size:>12,} bytes", markup=False)
    if done.omitted:
        console.print(f"{done.omitted}; --to safetensors-bundle contains both", markup=False)
    if done.largest_difference is not None:
        console.print(
            f"largest logit difference from the run: {done.largest_difference:.1e} on {done.rows_compared:,} rows"
        )
    for graph in done.graphs:
        left_out = "" if graph.kept else "; left out, as more than 1 % differ"
        console.print(
            f"onnx/{graph.file}: the run's label on {graph.agreement:.1%} of {graph.rows:,} rows of {graph.data}"
            f"{left_out}",
            markup=False,
        )
    if done.int8 and done.int8.kept:
        gate = done.int8
        console.print(f"{gate.metric} on {gate.rows:,} rows: fp32 {gate.fp32:.4f}, int8 {gate.int8:.4f}")
