"""The public surface of the upstream package as far as the adapter touches it, and what it saw."""

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class ModelConfig:
    N: int = 64
    gridsize: int = 1
    n_filters_scale: int = 2
    model_type: str = "pinn"


@dataclass
class TrainingConfig:
    model: ModelConfig
    train_data_file: Path | None = None
    test_data_file: Path | None = None
    batch_size: int = 16
    nepochs: int = 50
    mae_weight: float = 0.0
    nll_weight: float = 1.0
    nphotons: float = 1e9
    n_groups: int | None = None
    subsample_seed: int | None = None
    neighbor_count: int = 4
    output_dir: Path = Path("training_outputs")
    backend: str = "tensorflow"


class RawData:
    def __init__(
        self,
        xcoords: Any,
        ycoords: Any,
        xcoords_start: Any,
        ycoords_start: Any,
        diff3d: Any,
        probeGuess: Any,  # noqa: N803  # upstream's name
        scan_index: Any,
        objectGuess: Any = None,  # noqa: N803  # upstream's name
    ) -> None:
        self.coordinates = (xcoords, ycoords, xcoords_start, ycoords_start)
        self.diff3d, self.probe, self.scan_index = diff3d, probeGuess, scan_index
        self.object = objectGuess


@dataclass
class Upstream:
    """What happened, in order, and what the trainer was given; ``cfg`` is the global dictionary."""

    losses: list[float] = field(default_factory=lambda: [0.5, 0.25])
    calls: list[str] = field(default_factory=list)
    cfg: dict[str, Any] = field(default_factory=lambda: {"N": 7, "left": "alone"})
    cfg_at_training: dict[str, Any] = field(default_factory=dict)
    train: RawData | None = None
    settings: TrainingConfig | None = None
    fails: bool = False

    def update_legacy_dict(self, cfg: dict[str, Any], config: TrainingConfig) -> None:
        self.calls.append("bridge")
        values = asdict(config)
        cfg.update(values.pop("model") | values)

    def raw_data(self, **arrays: Any) -> RawData:
        self.calls.append("load")
        return RawData(**arrays)

    def train_cdi_model_torch(self, train: RawData, test: RawData, config: TrainingConfig) -> Any:
        self.calls.append("train")
        self.train, self.settings, self.cfg_at_training = train, config, dict(self.cfg)
        if self.fails:
            raise RuntimeError("out of memory")
        return {"history": {"train_loss": self.losses}, "models": {"autoencoder": object()}}

    def save_torch_bundle(self, models: Any, base_path: str, config: TrainingConfig) -> None:
        self.calls.append("save")
        Path(f"{base_path}.zip").write_bytes(b"weights")

    def install(self, monkeypatch: Any) -> None:
        """Make it importable under the upstream names."""
        config = {
            "ModelConfig": ModelConfig,
            "TrainingConfig": TrainingConfig,
            "update_legacy_dict": self.update_legacy_dict,
        }
        surface = {
            "ptycho": {},
            "ptycho.config": {},
            "ptycho.config.config": config,
            "ptycho.params": {"cfg": self.cfg},
            "ptycho.raw_data": {"RawData": self.raw_data},
            "ptycho_torch": {},
            "ptycho_torch.workflows": {},
            "ptycho_torch.workflows.components": {
                "train_cdi_model_torch": self.train_cdi_model_torch
            },
            "ptycho_torch.model_manager": {"save_torch_bundle": self.save_torch_bundle},
        }
        for name, content in surface.items():
            module = ModuleType(name)
            module.__dict__.update(content)
            monkeypatch.setitem(sys.modules, name, module)
