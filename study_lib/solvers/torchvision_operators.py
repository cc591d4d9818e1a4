"""Make torchvision importable beside a CPU build of torch.

torchvision's released wheels bring operators compiled for CUDA builds; beside a CPU build they do
not load, and then torchvision, pty-chi and torchmetrics all fail to import. The study needs none
of the operators. The import only looks two of them up, so their schemas are enough.
"""

import importlib
import sys
from typing import Any

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept_libraries: list[Any] = []


def import_torchvision() -> None:
    """Import torchvision, with the schemas of its operators if those do not load."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        torch_library: Any = importlib.import_module("torch.library")
        library = torch_library.Library("torchvision", "FRAGMENT")
        for schema in SCHEMAS:
            library.define(schema)
        _kept_libraries.append(library)
        importlib.import_module("torchvision")
