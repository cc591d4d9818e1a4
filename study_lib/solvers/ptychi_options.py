"""The engines of pty-chi by name, and their options with everything off that moves the scale.

Settings that contradict each other cannot be asked for: nothing rescales the probe, constrains its
power or moves scale between probe and object, and positions are never refined.
"""

import json
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from study_lib.errors import InputError

NOISE_MODELS = ("gaussian", "poisson")
RECORDED = (
    "noise_model",
    "loss_function",
    "num_epochs",
    "batch_size",
    "batching_mode",
    "chunk_length",
    "beta",
    "exit_wave_update_relaxation",
    "method",
    "random_seed",
    "default_device",
    "default_dtype",
    "gaussian_noise_std",
    "momentum_acceleration_gain",
    "preconditioning_damping_factor",
    "rescale_probe_intensity_in_first_epoch",
    "single_slice_solve_obj_prb_step_size_jointly",
)


@dataclass(frozen=True)
class _Engine:
    """What pty-chi calls an engine, the noise models it has, and whether it takes batches."""

    options: str
    noise_models: tuple[str, ...] = ("gaussian",)
    batches: bool = True
    momentum: bool = False


ENGINES = {
    "LSQML": _Engine("LSQMLOptions", NOISE_MODELS, momentum=True),
    "PIE": _Engine("PIEOptions"),
    "ePIE": _Engine("EPIEOptions"),
    "rPIE": _Engine("RPIEOptions"),
    "DM": _Engine("DMOptions", batches=False),
    "RAAR": _Engine("RAAROptions", batches=False),
    "BH": _Engine("BHOptions"),
    "autodiff": _Engine("AutodiffPtychographyOptions"),
}


@dataclass(frozen=True)
class EngineSettings:
    """One run of an engine.

    Parameters
    ----------
    algorithm
        A name in ``ENGINES``.
    epochs, batch_size
        Passes over the patterns, and patterns per update; DM and RAAR update once an epoch, and
        compute so many patterns at a time.
    noise_model
        ``gaussian`` for the amplitudes (variance-stabilised counts), or ``poisson``, which only
        LSQML has; the steps of autodiff diverge with it.
    momentum
        Gain of LSQML's momentum acceleration, 0 for none. pty-chi moves the object with it only
        where batches lie together, so batches are compact then.
    seed
        Order of the batches; LSQML with ``poisson`` also takes the small random part of its step
        sizes from it.
    refine_probe
        Whether the probe is an unknown too.

    Raises
    ------
    InputError
        If the engine does not exist or cannot do what is asked.
    """

    algorithm: str
    epochs: int
    batch_size: int
    noise_model: str
    momentum: float
    seed: int
    refine_probe: bool

    def __post_init__(self) -> None:
        """Check that the engine can do it."""
        if self.algorithm not in ENGINES:
            raise InputError(
                f"algorithm {self.algorithm!r}: pty-chi has {', '.join(ENGINES)} here; choose one"
            )
        engine = ENGINES[self.algorithm]
        if self.noise_model not in engine.noise_models:
            able = [
                name for name, other in ENGINES.items() if self.noise_model in other.noise_models
            ]
            remedy = f"{self.noise_model} is for {' and '.join(able)}" if able else "choose one"
            raise InputError(
                f"noise_model {self.noise_model!r}: {self.algorithm} takes "
                f"{' and '.join(engine.noise_models)}; {remedy}"
            )
        if self.momentum and not engine.momentum:
            raise InputError(
                f"momentum {self.momentum:g}: {self.algorithm} has none, LSQML has; set it to 0"
            )
        if self.epochs < 1 or self.batch_size < 1 or not 0 <= self.momentum < 1:
            raise InputError(
                f"epochs is {self.epochs}, batch_size {self.batch_size} and momentum "
                f"{self.momentum:g}; the first two must be at least 1, momentum in 0 to 1"
            )


def options_of(
    api: ModuleType, settings: EngineSettings, position_origin_px: tuple[float, float]
) -> Any:
    """Return pty-chi's options for a run.

    Parameters
    ----------
    api
        ``ptychi.api``.
    settings
        What is asked for.
    position_origin_px
        (row, column) in pty-chi's object at which position zero lies.
    """
    engine = ENGINES[settings.algorithm]
    options = getattr(api, engine.options)()
    options.data_options.fft_shift = True
    options.data_options.free_space_propagation_distance_m = float("inf")

    solver = options.reconstructor_options
    solver.num_epochs = settings.epochs
    solver.random_seed = settings.seed
    solver.default_device = api.Devices.CPU
    solver.allow_nondeterministic_algorithms = False
    if engine.batches:
        solver.batch_size = settings.batch_size
    else:
        solver.chunk_length = settings.batch_size
        solver.displayed_loss_function = None
    if settings.algorithm == "LSQML":
        solver.noise_model = settings.noise_model
        solver.rescale_probe_intensity_in_first_epoch = False
        solver.single_slice_solve_obj_prb_step_size_jointly = True
        solver.momentum_acceleration_gain = settings.momentum
        if settings.momentum:
            solver.batching_mode = "compact"
    if settings.algorithm == "ePIE":  # as published (Maiden and Rodenburg 2009), not its 0.1
        options.object_options.alpha = 1.0
        options.probe_options.alpha = 1.0

    object_options = options.object_options
    object_options.remove_object_probe_ambiguity.enabled = False
    object_options.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
    object_options.position_origin_coords = list(position_origin_px)

    options.probe_options.optimizable = settings.refine_probe
    options.probe_options.power_constraint.enabled = False
    options.probe_options.orthogonalize_incoherent_modes.enabled = False
    options.probe_options.orthogonalize_opr_modes.enabled = False
    options.probe_position_options.optimizable = False
    options.opr_mode_weight_options.optimizable = False
    return options


def record_of(options: Any, settings: EngineSettings) -> dict[str, Any]:
    """Return the options that matter as plain data."""
    solver = json.loads(json.dumps(options.reconstructor_options.get_dict(), default=str))
    step = next(
        getattr(options.object_options, name)
        for name in ("optimal_step_size_scaler", "alpha", "step_size")
        if hasattr(options.object_options, name)
    )
    return {
        "algorithm": settings.algorithm,
        "object_start": "uniform",
        "refine_probe": options.probe_options.optimizable,
        "refine_positions": options.probe_position_options.optimizable,
        "probe_power_constraint": options.probe_options.power_constraint.enabled,
        "remove_object_probe_ambiguity": (
            options.object_options.remove_object_probe_ambiguity.enabled
        ),
        "object_step": step,
        **{name: solver[name] for name in RECORDED if name in solver},
    }
