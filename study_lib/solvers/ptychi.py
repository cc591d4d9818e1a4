"""Iterative reconstruction by the engines of pty-chi, LSQML first of all.

Where pty-chi 2.2 departs from this project, and what is done about it:

* A patch starts at ``round(position) + origin - (n - 1) / 2``. The origin is therefore set to
  ``(n - 1) / 2 - n // 2`` less the first pixel of the buffer, so that positions stay in the frame
  of the object and are rounded as in :mod:`study_lib.physics.forward`; the rest shifts the probe
  there too.
* Its Fourier transform is not unitary: the probe is divided by ``n`` on the way in.
* ``random_seed`` does not reach the order of the batches, whose generator always starts alike; that
  generator is seeded here.
* It asks for a pixel of margin around the patches; the buffer has it, the result does not.
* LSQML's object and probe steps stay solved together, its default, even where the probe is fixed:
  alone, the object's step carries a further factor of one half and takes some 1.5 times the epochs.
* Only the first of several incoherent modes is shifted by the sub-pixel part of a position; while
  it runs, it is lent the same shift for all of them. LSQML solves its step sizes with the first
  mode alone, scales them by the light of that mode and divides the object's by their number, so
  that it depends on how the same light is mixed, and on modes without light; here the step is that
  of all modes, undivided.
* It has one mask for all patterns and no background: see :func:`one_mask_of` and
  :func:`background_for`. Its original PIE refines no probe of several modes.
* Two fifths of its time go into the phase ramps of its sub-pixel shift, made pixel by pixel; while
  it runs it is lent the same shift with a ramp along rows times one along columns.
* RAAR of 2.2.0 leaves the solution again after some twenty epochs of a known probe, and DM stays
  away from it: losses, residuals and remarks of a result say so.
"""

import importlib
import json
import logging
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from study_lib.errors import InputError, StudyError
from study_lib.physics.forward import corners_of
from study_lib.physics.fourier import shift
from study_lib.physics.probe import modes_of, orthogonal_modes
from study_lib.solvers.checks import remarks_on_isolated_patterns, require_solvable

# --- Engines by name, with every option off that moves the scale
#
# Settings that contradict each other cannot be asked for: nothing rescales the probe, constrains
# its power or moves scale between probe and object.

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
    """What pty-chi calls an engine, the noise models it has, and whether it takes batches.

    ``by_prediction``: its update follows from the counts that it predicts, to which a background
    can be added; others replace moduli. ``refines_modes``: whether several at once.
    """

    options: str
    noise_models: tuple[str, ...] = ("gaussian",)
    batches: bool = True
    momentum: bool = False
    by_prediction: bool = False
    refines_modes: bool = True


ENGINES = {
    "LSQML": _Engine("LSQMLOptions", NOISE_MODELS, momentum=True, by_prediction=True),
    "PIE": _Engine("PIEOptions", refines_modes=False),
    "ePIE": _Engine("EPIEOptions"),
    "rPIE": _Engine("RPIEOptions"),
    "DM": _Engine("DMOptions", batches=False),
    "RAAR": _Engine("RAAROptions", batches=False),
    "BH": _Engine("BHOptions"),
    "autodiff": _Engine("AutodiffPtychographyOptions", by_prediction=True),
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
    refine_positions
        Whether the positions are, by the gradient of the object.
    modes
        Incoherent modes of the probe.

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
    refine_positions: bool = False
    modes: int = 1

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
        if self.refine_probe and self.modes > 1 and not engine.refines_modes:
            raise InputError(
                f"{self.algorithm} of pty-chi refines one coherent mode, and the probe has "
                f"{self.modes}; use rPIE or LSQML, or keep the probe as it is"
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
        if settings.modes > 1:  # the best step of all together is not one for each
            solver.solve_step_sizes_only_using_first_probe_mode = False
            options.object_options.optimal_step_size_scaler *= settings.modes
    if settings.algorithm == "ePIE":  # as published (Maiden and Rodenburg 2009), not its 0.1
        options.object_options.alpha = 1.0
        options.probe_options.alpha = 1.0

    object_options = options.object_options
    object_options.build_preconditioner_with_all_modes = settings.modes > 1
    object_options.remove_object_probe_ambiguity.enabled = False
    object_options.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
    object_options.position_origin_coords = list(position_origin_px)

    options.probe_options.optimizable = settings.refine_probe
    options.probe_options.power_constraint.enabled = False
    options.probe_options.orthogonalize_incoherent_modes.enabled = False
    options.probe_options.orthogonalize_opr_modes.enabled = False
    options.probe_position_options.optimizable = settings.refine_positions
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
        **({"modes": settings.modes} if settings.modes > 1 else {}),
        **{name: solver[name] for name in RECORDED if name in solver},
    }


# --- What pty-chi does not model

MASKED_AT_MOST = 0.05  # of the detector, that may be left out of every pattern
IGNORED_BACKGROUND = 0.01  # of the counts


def one_mask_of(
    algorithm: str, bad_pixels: Bool[np.ndarray, "*each n n"] | None
) -> tuple[Bool[np.ndarray, "n n"] | None, tuple[str, ...]]:
    """Return one mask for all patterns, and a remark where it hides counts that are valid.

    A pixel that is bad in any pattern is left out of all.

    Parameters
    ----------
    algorithm
        Its name in messages.
    bad_pixels : (n, n) or (scan, n, n)
        True where no count is valid.

    Raises
    ------
    InputError
        If that hides more than `MASKED_AT_MOST` of the detector.
    """
    if bad_pixels is None or bad_pixels.ndim == 2:
        return bad_pixels, ()
    anywhere: np.ndarray = np.logical_or.reduce(bad_pixels, axis=0)
    if (anywhere == bad_pixels[0]).all() and (anywhere == bad_pixels.all(axis=0)).all():
        return anywhere, ()
    share = float(anywhere.mean())
    found = f"pixels that are bad in any pattern are {share:.2g} of the detector"
    if share > MASKED_AT_MOST:
        raise InputError(
            f"pty-chi's {algorithm} takes one mask for all patterns, and {found}, more than "
            f"{MASKED_AT_MOST:g}; use the solver, or leave out the patterns with most of them"
        )
    return anywhere, (
        f"fall-back: pty-chi takes one mask for all patterns; {found} and were left out of all",
    )


def background_for(
    algorithm: str,
    background: Float[np.ndarray, "n n"] | None,
    amplitudes: Float[np.ndarray, "scan n n"],
    bad_pixels: Bool[np.ndarray, "n n"] | None,
) -> tuple[Float[np.ndarray, "n n"] | None, tuple[str, ...]]:
    """Return the background that an engine is given, and a remark where it goes without.

    LSQML and autodiff follow from the counts they predict, and it is added to those. The others
    replace the moduli of waves by those of the counts: they ignore what is less than
    `IGNORED_BACKGROUND` of the counts.

    Parameters
    ----------
    algorithm
        Of ``ENGINES``.
    background : (n, n)
        Expected counts that do not come from the object.
    amplitudes : (scan, n, n)
        Square roots of the counts.
    bad_pixels : (n, n)
        True where no count is valid.

    Raises
    ------
    InputError
        If the engine cannot take as much.
    """
    if background is None or ENGINES[algorithm].by_prediction:
        return background, ()
    good = np.ones(background.shape, bool) if bad_pixels is None else ~bad_pixels
    flat = amplitudes.reshape(len(amplitudes), -1)
    counts = float(np.vecdot(flat, flat).sum(dtype=np.float64))
    share = float(background[good].sum(dtype=np.float64)) * len(amplitudes) / counts
    if share >= IGNORED_BACKGROUND:
        able = " and ".join(name for name, engine in ENGINES.items() if engine.by_prediction)
        raise InputError(
            f"pty-chi's {algorithm} has no background, and that of these data is {share:.2g} of "
            f"the counts, {IGNORED_BACKGROUND:g} or more; use the solver, {able}"
        )
    return None, (f"it has no background: {share:.2g} of the counts, which was ignored",)


# --- torchvision beside a CPU build of torch
#
# torchvision's released wheels bring operators compiled for CUDA builds; beside a CPU build they
# do not load, and then torchvision, pty-chi and torchmetrics all fail to import. The study needs
# none of the operators. The import only looks two of them up, so their schemas are enough.

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


# --- Tasks of pty-chi

MARGIN = 2
MARGIN_REFINED = 8  # where positions may move: further than they should


EngineStop = Literal["epochs used up", "converged"]
WINDOW = 10  # epochs whose losses are compared; those of batches go up and down


@dataclass(frozen=True)
class EngineResult:
    """What an engine found.

    ``object_`` (oy, ox) is in the frame of the object that was asked for, one where no patch falls;
    ``probe``, (n, n) or (modes, n, n), predicts counts; refined modes are orthogonal, the strongest
    first; ``positions_px`` (scan, 2) are the given ones unless refined; ``losses`` (epochs,) are
    the mean squared differences of the measured and the predicted amplitudes, in photons per
    detector pixel, over each epoch while it ran (with DM and RAAR, how far an epoch moved the exit
    waves); ``wall_s`` (epochs,) is the time since the start; ``options`` are plain data for JSON;
    ``cpu_s`` is processor time; ``remarks`` say what makes the result doubtful; ``stop`` what ended
    the run.
    """

    object_: Complex[np.ndarray, "oy ox"]
    probe: Complex[np.ndarray, "*modes n n"]
    positions_px: Float[np.ndarray, "scan 2"]
    losses: Float[np.ndarray, " epochs"]
    wall_s: Float[np.ndarray, " epochs"]
    options: dict[str, Any]
    cpu_s: float
    remarks: tuple[str, ...]
    stop: EngineStop


def import_ptychi() -> ModuleType:
    """Return the package pty-chi with its ``api`` and ``api.task`` imported.

    Raises
    ------
    StudyError
        If pty-chi or something it needs is absent.
    """
    try:
        import_torchvision()
        importlib.import_module("ptychi.api.task")
        importlib.import_module("ptychi.image_proc")
        return importlib.import_module("ptychi")
    except (ImportError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(
            f"this algorithm needs pty-chi, which does not import ({reason}); "
            "install it beside torch with: pip install ptychi==2.2.0"
        ) from error


def run_ptychi(
    *,
    amplitudes: Float[np.ndarray, "scan n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    probe: Complex[np.ndarray, "*modes n n"],
    object_shape: tuple[int, int],
    epochs: int,
    batch_size: int,
    noise_model: str,
    seed: int,
    algorithm: str = "LSQML",
    momentum: float = 0.0,
    bad_pixels: Bool[np.ndarray, "*each n n"] | None = None,
    background: Float[np.ndarray, "n n"] | None = None,
    refine_probe: bool = False,
    refine_positions: bool = False,
    tolerance: float = 0.0,
    progress: Callable[[int, int, float], None] | None = None,
) -> EngineResult:
    """Return the object that explains the patterns, from a uniform start.

    Nothing rescales the probe or moves power between probe and object; what is not refined stays as
    given. The same seed gives the same bytes on one thread.

    Parameters
    ----------
    amplitudes : (scan, n, n)
        Square roots of the counts, zero frequency in the centre.
    positions_px : (scan, 2)
        (row, column) of the patch centres in object pixels.
    probe : (n, n) or (modes, n, n)
        Illumination in sqrt(photons) per pixel: one coherent mode, or incoherent ones.
    object_shape
        (rows, columns) of the object, lit or not.
    epochs, batch_size, noise_model, seed, algorithm, momentum, refine_probe, refine_positions
        As in :class:`EngineSettings`.
    bad_pixels : (n, n) or (scan, n, n)
        True where no count is valid; the wave there is left as the model has it. Masks of each
        pattern become one, see :func:`one_mask_of`. The losses that pty-chi reports count these
        pixels all the same.
    background : (n, n)
        Expected counts that do not come from the object, see :func:`background_for`.
    tolerance
        Relative fall of the loss per epoch, mean of ten, below which it has converged; 0: all
        epochs are run, as pty-chi itself does.
    progress
        Called after each epoch with (epochs done, epochs, loss).

    Raises
    ------
    InputError
        If the arrays do not fit together or hold no light, a patch leaves the object, or the engine
        cannot model them.
    StudyError
        If pty-chi is absent, or the engine does not stay finite.

    References
    ----------
    LSQML: Odstrcil, Menzel and Guizar-Sicairos, Opt. Express 26, 3108 (2018),
    doi:10.1364/OE.26.003108. The PIE family: Maiden, Johnson and Li, Optica 4, 736 (2017),
    doi:10.1364/OPTICA.4.000736. RAAR: Marchesini et al., J. Appl. Cryst. 49, 1245 (2016),
    doi:10.1107/S1600576716008074.
    """
    positions = positions_px.astype(np.float32)
    require_solvable(amplitudes, positions, probe, object_shape, bad_pixels, background)
    settings = EngineSettings(
        algorithm=algorithm,
        epochs=epochs,
        batch_size=batch_size,
        noise_model=noise_model,
        momentum=momentum,
        seed=seed,
        refine_probe=refine_probe,
        refine_positions=refine_positions,
        modes=len(modes_of(probe)),
    )
    mask, remarks = one_mask_of(algorithm, bad_pixels)
    dark, remarks_on_background = background_for(algorithm, background, amplitudes, mask)
    with _borrowed_globals():  # what it imports draws random numbers too
        ptychi = import_ptychi()
    side = probe.shape[-1]
    margin = MARGIN_REFINED if refine_positions else MARGIN
    corners = corners_of(torch.from_numpy(positions), side)
    first = corners.amin(dim=0) - margin
    buffer_shape = (corners.amax(dim=0) - first + side + margin).tolist()
    first_y, first_x = ((side - 1) / 2 - side // 2 - start for start in first.tolist())
    start = time.process_time()
    with _borrowed_globals(), _lent_shifts(ptychi):
        options = options_of(ptychi.api, settings, (first_y, first_x))
        task = ptychi.api.task.PtychographyTask(
            options,
            diffraction_data=np.round(amplitudes.astype(np.float64) ** 2).astype(np.float32),
            object_data=np.ones((1, *buffer_shape), np.complex64),
            probe_data=modes_of(probe / side).astype(np.complex64)[None],
            probe_position_y_px=positions[:, 0],
            probe_position_x_px=positions[:, 1],
            opr_mode_weights_data=np.ones(1, np.float32),
            valid_pixel_mask=None if mask is None else ~mask,
        )
        task.reconstructor.dataloader.generator.manual_seed(seed)
        if dark is not None:
            _add_to_predictions(task, dark)
        losses, wall_s = _run(task, settings, tolerance, progress)
        patch = task.get_data_to_cpu("object", as_numpy=True)[0]
        refined = task.get_data_to_cpu("probe", as_numpy=True)[0].reshape(probe.shape) * side
        moved = task.get_data_to_cpu("probe_positions", as_numpy=True)
    _check_finite(patch, losses, algorithm)
    object_: np.ndarray = np.ones(object_shape, np.complex64)
    places = zip(corners.tolist(), (corners - first).tolist(), strict=True)
    for (top, left), (row, column) in places:
        object_[top : top + side, left : left + side] = patch[
            row : row + side, column : column + side
        ]
    return EngineResult(
        object_=object_,
        probe=(orthogonal_modes(refined) if refine_probe else probe).astype(np.complex64),
        positions_px=moved.astype(positions_px.dtype) if refine_positions else positions_px,
        losses=losses,
        wall_s=wall_s,
        options={"ptychi": ptychi.__version__, **record_of(options, settings)},
        cpu_s=time.process_time() - start,
        remarks=(
            *remarks_on_isolated_patterns(probe, positions_px, object_shape),
            *remarks,
            *remarks_on_background,
        ),
        stop="converged" if len(losses) < epochs else "epochs used up",
    )


def _check_finite(patch: np.ndarray, losses: np.ndarray, algorithm: str) -> None:
    wrong = int((~np.isfinite(patch)).sum())
    if wrong or not np.isfinite(losses).all():
        raise StudyError(
            f"{algorithm} diverged: {wrong} of {patch.size} object pixels are not finite, the last "
            f"loss is {losses[-1]}; use more patterns per batch or check the scale of the probe"
        )


def _run(
    task: Any,
    settings: EngineSettings,
    tolerance: float,
    progress: Callable[[int, int, float], None] | None,
) -> tuple[Float[np.ndarray, " epochs"], Float[np.ndarray, " epochs"]]:
    """Run epoch by epoch, as the state of the task carries over; return losses and times."""
    epochs = settings.epochs
    losses: list[float] = []
    wall_s: list[float] = []
    started = time.perf_counter()
    while len(losses) < epochs and not _has_converged(losses, tolerance):
        try:
            task.run(n_epochs=1, reset_timer_globals=False)
        except RuntimeError as error:
            raise StudyError(
                f"{settings.algorithm} stopped in epoch {len(losses) + 1} of {epochs} ({error}); "
                "use more patterns per batch or check the scale of the probe"
            ) from error
        losses.append(float(task.reconstructor.loss_tracker.table["loss"].iloc[-1]))
        wall_s.append(time.perf_counter() - started)
        if progress:
            progress(len(losses), epochs, losses[-1])
    return np.array(losses), np.array(wall_s)


def _has_converged(losses: list[float], tolerance: float) -> bool:
    """Return whether the least loss of the last epochs is hardly below that before them."""
    if not tolerance or len(losses) <= WINDOW:
        return False
    before = min(losses[:-WINDOW])
    return before - min(losses) < WINDOW * tolerance * before


def _add_to_predictions(task: Any, background: Float[np.ndarray, "n n"]) -> None:
    """Have a task's forward model predict a background too, in the order of its patterns."""
    added = torch.fft.fftshift(torch.from_numpy(background.astype(np.float32)))
    task.reconstructor.forward_model.register_forward_hook(
        lambda model, given, expected: expected + added
    )


@contextmanager
def _lent_shifts(ptychi: ModuleType) -> Iterator[None]:
    """Have pty-chi shift complex images by :func:`study_lib.physics.fourier.shift`, all modes."""
    image_proc = ptychi.image_proc
    model = importlib.import_module("ptychi.forward_models").PlanarPtychographyForwardModel
    engine = importlib.import_module(
        "ptychi.reconstructors.base"
    ).AnalyticalIterativePtychographyReconstructor
    own = image_proc.fourier_shift
    own_forwards, own_adjoint = (
        model.shift_unique_probes,
        engine.adjoint_shift_probe_update_direction,
    )

    def fourier_shift(
        images: Tensor, shifts: Tensor, strictly_preserve_zeros: bool = False
    ) -> Tensor:
        if strictly_preserve_zeros or not images.is_complex():
            kept: Tensor = own(images, shifts, strictly_preserve_zeros)
            return kept
        return shift(images, shifts)

    def mode_by_mode(shift_one: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def shift_all(
            of: Any, indices: Tensor, waves: Tensor, first_mode_only: bool = False
        ) -> Tensor:
            modes = waves.split(1, dim=-3)
            return torch.cat([shift_one(of, indices, mode, True) for mode in modes], dim=-3)

        return shift_all

    image_proc.fourier_shift = fourier_shift
    model.shift_unique_probes = mode_by_mode(own_forwards)
    engine.adjoint_shift_probe_update_direction = mode_by_mode(own_adjoint)
    try:
        yield
    finally:
        image_proc.fourier_shift = own
        model.shift_unique_probes = own_forwards
        engine.adjoint_shift_probe_update_direction = own_adjoint


@contextmanager
def _borrowed_globals() -> Iterator[None]:
    """Put back what pty-chi sets for the whole process; keep its log to warnings.

    It seeds three global generators, sets torch's default device and type, and its calls of
    ``logging.info`` give the root logger a handler. Torch's remark on pty-chi's bounds check is
    left out: it is about gradients, which the projection engines do not use.
    """
    root, logger = logging.getLogger(), logging.getLogger("ptychi")
    handlers, level = root.handlers[:], logger.level
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    numpy_state, python_state = np.random.get_state(), random.getstate()
    logger.setLevel(logging.WARNING)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # pty-chi does so in every epoch, where the gradient is not wanted.
            warnings.filterwarnings("ignore", "Converting a tensor with requires_grad")
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        torch.set_default_dtype(dtype)
        torch.set_default_device(None if device.type == "cpu" else device)
        logger.setLevel(level)
        root.handlers[:] = handlers
