"""Write what the prediction contenders of the speed matrix load: an adapter folder, and ONNX graphs in fp32 and int8.

    python benchmarks/prepare.py DATA MODEL FOLDER

The adapter is untrained. Nothing is written if the folder exists.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from serving import FP32_GRAPH, INT8_GRAPH, untrained
from work import Work

from loralet.artifacts.folder import save_artifact
from loralet.artifacts.merge import merge
from loralet.atomic import new_folder
from loralet.export.graph import write_int8, write_onnx

ROWS = 64
"""Rows of the data that are read; only their labels matter."""


def prepare(data: str, model: str, folder: Path, graphs: bool) -> None:
    """Write the adapter and, if ``graphs``, the graphs."""
    if folder.exists():
        return
    artifact, backbone = untrained(Work(data, model, steps=1, rows=ROWS, sample=ROWS, exact=True))
    with new_folder(folder) as temporary:
        save_artifact(temporary / "adapter", artifact, backbone)
        if graphs:
            write_onnx(merge(artifact, backbone), temporary / FP32_GRAPH)
            write_int8(temporary / FP32_GRAPH, temporary / INT8_GRAPH)


def main() -> None:
    """Prepare one backbone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder with train and test files")
    parser.add_argument("model", help="backbone")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--no-graphs", action="store_true", help="write the adapter only")
    arguments = parser.parse_args()
    prepare(arguments.data, arguments.model, arguments.folder, not arguments.no_graphs)


if __name__ == "__main__":
    main()
