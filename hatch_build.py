"""Build hook of the wheel: compile the kernels for every instruction set that the compiler supports (Linux only).

The hook is off by default, so ``pip install`` from a checkout or an sdist installs sources that compile at first use.
``make wheel`` sets ``HATCH_BUILD_HOOK_ENABLE_CUSTOM=true``.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INSIDE = "loralet/backends/native/prebuilt"
"""Folder of the libraries in the wheel."""


class CustomBuildHook(BuildHookInterface):
    """Adds the kernels to the wheel and sets its platform. Without kernels, the wheel stays ``py3-none-any``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the kernels into a temporary folder."""
        if version == "editable" or sys.platform != "linux":
            return
        self._folder = tempfile.mkdtemp()
        libraries = self._libraries(Path(self._folder))
        if not libraries:
            self.app.display_warning("no kernels: the wheel contains only sources, which compile at first use")
            return
        build_data["force_include"].update({str(path): f"{INSIDE}/{path.name}" for path in libraries})
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder."""
        shutil.rmtree(getattr(self, "_folder", ""), ignore_errors=True)

    def _libraries(self, folder: Path) -> list[Path]:
        """Compile every instruction set; those that the compiler rejects are listed and left out."""
        sys.path.insert(0, str(Path(self.root) / "src"))
        from loralet.backends.native.build import NativeUnavailable, prebuild, prebuilt_instructions

        libraries = []
        for instructions in prebuilt_instructions():
            try:
                libraries.append(prebuild(instructions, folder))
                self.app.display_info(f"kernels: {libraries[-1].name}, {libraries[-1].stat().st_size / 1024:.0f} KiB")
            except NativeUnavailable as failure:
                self.app.display_warning(f"kernels: no {instructions}: {failure}")
        return libraries
