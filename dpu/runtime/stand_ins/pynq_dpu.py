"""Stand-in for `pynq_dpu` (DPU-PYNQ 2.5.1): an overlay without a bitstream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import vart
import xir

from tutelage.core.errors import DpuError, not_emulated
from tutelage.core.fingerprint import dpu_parts


class DpuOverlay:
    """The DPU overlay that DPU-PYNQ's notebooks load.

    Attributes
    ----------
    bitfile_name, overlay_dirname, overlay_basename : path of the bitstream, which is not read
    runner, graph : runner and graph of the loaded model, None before
    """

    def __init__(
        self,
        bitfile_name: str,
        dtbo: Any = None,
        download: bool = True,
        ignore_version: bool = False,
        device: Any = None,
    ) -> None:
        path = Path(bitfile_name).absolute()
        self.bitfile_name = str(path)
        self.overlay_dirname, self.overlay_basename = str(path.parent), path.name
        self.runner: Any = None
        self.graph: Any = None

    def download(self) -> None:
        """Do nothing: there is no bitstream."""

    def load_model(self, model: str) -> None:
        """Set `graph` and `runner` from an .xmodel with one DPU subgraph.

        Parameters
        ----------
        model : path, absolute or relative to the working directory or the overlay's directory

        Raises
        ------
        ValueError
            There is no such file.
        RuntimeError
            The file is not an .xmodel, or does not have exactly one DPU subgraph.
        """
        places = [Path(model), Path(self.overlay_dirname, model)]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise ValueError(f"File {model} does not exist.")
        if found.suffix != ".xmodel":
            raise RuntimeError(f"{model}: only xmodel files can be loaded")
        graph = xir.Graph.deserialize(str(found))
        parts = dpu_parts(graph)
        if len(parts) != 1:
            raise DpuError(f"{model}: has {len(parts)} DPU subgraphs; DpuOverlay runs exactly one")
        self.graph, self.runner = graph, vart.Runner.create_runner(parts[0], "run")

    def __getattr__(self, name: str) -> Any:
        raise not_emulated("pynq_dpu.DpuOverlay", name)


def __getattr__(name: str) -> Any:
    raise not_emulated("pynq_dpu", name)
