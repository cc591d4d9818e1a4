"""What the thinning network is shown, what it learns from, and what judges it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int, Shaped
from torch import Tensor

from study_lib.networks.thinned.trust import width_px
from study_lib.physics.forward import (
    add_patches,
    corners_of,
    counts_of_modes,
    patches_at,
    probes_at,
    summed_over_modes,
)
from study_lib.physics.fourier import fourier, inverse_fourier
from study_lib.physics.likelihood import deviance_by_pattern, likelihood_judge, masks_of
from study_lib.physics.measurement import Box, Measurement, at_positions, split_photons
from study_lib.solvers.alternating import Tried, alternate, last_smoothing, losses_in_turn
from study_lib.solvers.denoising import (
    LIT_SHARE,
    NONE,
    DenoiserChoice,
    LitPart,
    choose_by_held_out_counts,
    choose_denoiser,
    denoised,
    denoised_where_lit,
    slow_phasor,
)
from study_lib.solvers.solver import solve_measurement

# --- How counts would have an object changed: the likelihood's gradient

OFFSET = 0.02  # photons per pixel that bound the gradient, as the solver's

DAMPING = 0.05  # share of the brightest pixel's light in that of every pixel

CHUNK = 64


@dataclass(frozen=True)
class BoxedScan:
    """Where a measurement was taken, as tensors in a box of the object that holds its patches.

    ``positions_px`` (scan, 2) are in the frame of the box; the rest is as in
    :class:`Measurement`.
    """

    probe: Complex[Tensor, "*modes n n"]
    positions_px: Float[Tensor, "scan 2"]
    bad_pixels: Bool[Tensor, "*each n n"] | None
    background: Float[Tensor, "n n"] | None

    @classmethod
    def of(cls, measurement: Measurement, box: Box) -> "BoxedScan":
        """Return the scan of a measurement."""
        bad, background = measurement.bad_pixels, measurement.background
        first = np.array([box[0].start, box[1].start])
        return BoxedScan(
            torch.from_numpy(measurement.probe.astype(np.complex64)),
            torch.from_numpy(measurement.positions_px - first),
            None if bad is None else torch.from_numpy(bad),
            None if background is None else torch.from_numpy(background.astype(np.float32)),
        )


@dataclass(frozen=True)
class CountsInBox(BoxedScan):
    """A scan with its counts (scan, n, n) and the ``light`` (y, x) in photons."""

    counts: Shaped[Tensor, "scan n n"]
    light: Float[Tensor, "y x"]

    def change(self, object_: Complex[Tensor, "y x"]) -> Complex[Tensor, "y x"]:
        """Return minus the gradient of the Poisson likelihood, over the light of every pixel.

        Of the size of the change that the counts ask for; can be differentiated.
        """
        side, shape = self.probe.shape[-1], (object_.shape[0], object_.shape[1])
        total = torch.zeros_like(object_)
        for start in range(0, len(self.counts), CHUNK):
            part = slice(start, start + CHUNK)
            positions, counts = self.positions_px[part], self.counts[part].float()
            probes, corners = probes_at(self.probe, positions), corners_of(positions, side)
            spectra = fourier(probes * patches_at(object_, corners, side))
            expected = summed_over_modes(spectra.real.square() + spectra.imag.square())
            if self.background is not None:
                expected = expected + self.background
            residual = 1 - (counts + OFFSET * counts.sign()) / (expected + OFFSET)
            bad = masks_of(self.bad_pixels, part)
            if bad is not None:
                residual = residual.masked_fill(bad, 0)
            waves = probes.conj() * inverse_fourier(spectra * residual)
            total = total + add_patches(summed_over_modes(waves), corners, shape)
        return -total / (self.light + DAMPING * self.light.max())


def counts_in_box(
    measurement: Measurement, box: Box, light: Float[np.ndarray, "oy ox"]
) -> CountsInBox:
    """Return the counts of a measurement whose patches all lie in a box.

    ``light`` (oy, ox) are its photons on each object pixel, of :class:`LitPart`.
    """
    return CountsInBox(
        **vars(BoxedScan.of(measurement, box)),
        counts=_packed(measurement.counts),
        light=torch.from_numpy(light[box]),
    )


def _packed(counts: Float[np.ndarray, "scan n n"]) -> Shaped[Tensor, "scan n n"]:
    """Return counts in as few bytes as the largest needs."""
    return torch.from_numpy(counts.astype(np.min_scalar_type(int(counts.max()))))


# --- What it is shown: the object as classical ways see it
#
# All of it is made from the counts of a measurement and where they were taken, nothing from a
# truth.

DENOISED_BY = ("gaussian", "total_variation", "non_local_means", "similar_blocks")
ALTERNATING_FAMILIES = ("total_variation", "non_local_means")
# Denoised objects beside the best of each family: the network may take the weaker or stronger one.
BESIDE = (("non_local_means", 0.5), ("non_local_means", 2.0), ("total_variation", 2.0))
ALTERNATING, LAST = "alternating ", ", then "  # in the names of candidates
SLOW_SHARE = 0.25  # of the width of the probe, in the window in which a change counts as slow
LEAST_LIT = 1e-3  # share of a window that is lit, below which less and less is changed
MAPS = 4  # images beside the candidates: both parts of the gradient, light, noise


@dataclass(frozen=True)
class ThinnedChoices:
    """What held-out counts chose before the network: denoiser, alternation and a last smoothing.

    ``alternating`` was judged against the solver's object denoised as ``after`` says, ``last``
    against the better of both. An alternation has ``epochs``.
    """

    after: DenoiserChoice
    alternating: DenoiserChoice
    last: DenoiserChoice
    epochs: int

    @property
    def before_last(self) -> str:
        """The candidate that the last smoothing is applied to."""
        if self.alternating.family != NONE:
            return f"{ALTERNATING}{self.alternating.family}"
        return "solver" if self.after.family == NONE else self.after.family

    @property
    def base(self) -> str:
        """The candidate that the network starts from, and returns to if it does not help."""
        last = "" if self.last.family == NONE else f"{LAST}{self.last.family}"
        return self.before_last + last


@dataclass(frozen=True)
class ThinnedInput:
    """Images of one measurement in a box of the object.

    ``candidates`` (k, y, x) are objects over ``phasor`` (y, x), the slow phase of the solver's;
    ``maps`` (4, y, x) both parts of the likelihood's preconditioned gradient at the base, the
    light's logarithm, and the noise it leaves. ``lit`` (y, x) is the light in units of its median,
    1 at most, ``slow_px`` the standard deviation of the window in which a change of the object
    counts as slow. ``base`` is the index of the base, ``noise`` the level of the noise in the
    solver's object, ``names`` say what each candidate is, ``data`` are the counts themselves, if
    the network asks for them.
    """

    candidates: Complex[Tensor, "k y x"]
    phasor: Complex[Tensor, "y x"]
    maps: Float[Tensor, "maps y x"]
    lit: Float[Tensor, "y x"]
    slow_px: float
    base: int
    noise: float
    names: tuple[str, ...] = ()
    data: CountsInBox | None = None

    @property
    def channels(self) -> Float[Tensor, "channels y x"]:
        """All images as the network takes them, centred about an object of ones."""
        return torch.cat([self.candidates.real - 1, self.candidates.imag, self.maps])

    @property
    def base_object(self) -> Complex[Tensor, "y x"]:
        """The base with its slow phase."""
        return self.phasor * self.candidates[self.base]

    def window(self, part: Box) -> "ThinnedInput":
        """Return a part of every image."""
        return replace(
            self,
            candidates=self.candidates[:, part[0], part[1]],
            phasor=self.phasor[part],
            maps=self.maps[:, part[0], part[1]],
            lit=self.lit[part],
        )

    def without_slow(self, change: Complex[Tensor, "y x"]) -> Complex[Tensor, "y x"]:
        """Return what is fast of a change of the object: less its mean over a window, where lit.

        What is slower than the probe is wide, a pattern hardly shows: it is known by how
        neighbouring patterns fit together. Counts that are held out see an error of it no better,
        so that a network taught by them drifts there.
        """
        weighted = torch.stack([change.real * self.lit, change.imag * self.lit, self.lit])
        real, imag, weight = blurred(weighted, self.slow_px)
        known = weight / weight.clamp(min=LEAST_LIT)  # less than 1 in the dark
        fast: Tensor = known * change - torch.complex(real, imag) / weight.clamp(min=LEAST_LIT)
        return fast


def blurred(images: Float[Tensor, "k y x"], width_px: float) -> Float[Tensor, "k y x"]:
    """Return images under a Gaussian window of this standard deviation, zero beyond them.

    Two products of matrices: a convolution's gradient takes ten times as long.
    """
    rows, columns = (_window_matrix(length, width_px, images) for length in images.shape[-2:])
    return rows @ images @ columns


def _window_matrix(length: int, width_px: float, like: Tensor) -> Float[Tensor, "n n"]:
    """Return what blurs a line of pixels: the window about each, up to three widths away."""
    reach_px = math.ceil(3 * width_px)
    places = torch.arange(-reach_px, length + reach_px, device=like.device, dtype=torch.float64)
    distances = places[reach_px : reach_px + length, None] - places
    window = torch.exp(-0.5 * (distances / width_px) ** 2) * (distances.abs() <= reach_px)
    within = (window / window.sum(dim=1, keepdim=True))[:, reach_px : reach_px + length]
    return within.to(like.dtype)


def thinned_choices(
    solved: Complex[np.ndarray, "oy ox"],
    measurement: Measurement,
    held_out: Measurement,
    *,
    epochs: int,
    progress: Tried | None = None,
) -> ThinnedChoices:
    """Return denoiser, alternation and last smoothing by held-out counts.

    Nearly as for the arm ``solver-alternating``: with the two families whose steps cost least, and
    always to the last epoch.

    Parameters
    ----------
    solved : (oy, ox)
        The solver's object of `measurement`.
    measurement, held_out
        Two independent parts of the same counts.
    epochs
        Of an alternation.
    progress
        Called with how many alternations are done, and of how many.
    """
    lit = LitPart.of(measurement)
    after = choose_denoiser(solved, lit, held_out, DENOISED_BY)
    judge = likelihood_judge(held_out)
    losses = losses_in_turn(
        solved, measurement, judge, lit, ALTERNATING_FAMILIES, epochs=epochs, progress=progress
    )
    object_ = after.applied(solved, lit)
    alternating = choose_by_held_out_counts(
        judge(object_),
        {
            (family, strength): loss
            for (family, done, strength), loss in losses.items()
            if done == epochs
        },
    )
    if alternating.family != NONE:
        object_ = alternate(
            measurement, solved, alternating.family, alternating.strength, lit, epochs=epochs
        )
    last = last_smoothing(
        lambda family, strength: judge(denoised_where_lit(object_, lit, family, strength))
    )
    return ThinnedChoices(after, alternating, last, epochs)


def thinned_input(
    measurement: Measurement,
    choices: ThinnedChoices,
    box: Box,
    solved: Complex[np.ndarray, "oy ox"] | None = None,
    *,
    with_data: bool = False,
) -> ThinnedInput:
    """Return what the network is shown of a measurement.

    Parameters
    ----------
    measurement
        Patterns, positions, probe.
    choices
        Strengths of everything classical; those of the train split.
    box
        Which part of the object is shown; at least what the measurement lights.
    solved : (oy, ox)
        The solver's object of the measurement, if it has been made.
    with_data
        Whether the counts are part of it.
    """
    if solved is None:
        solved = solve_measurement(measurement).object_
    lit = LitPart.of(measurement)
    of_family, of_alternating = choices.after.of_family, choices.alternating.of_family
    inside = solved[box]
    images = {"solver": inside}
    for family, strength in of_family.items():
        images[family] = denoised(inside, family, strength, lit.noise)
    for family, factor in BESIDE:
        images[f"{factor:g} {family}"] = denoised(
            inside, family, factor * of_family[family], lit.noise
        )
    for family, strength in of_alternating.items():
        whole = alternate(measurement, solved, family, strength, lit, epochs=choices.epochs)
        images[f"{ALTERNATING}{family}"] = whole[box]
    if choices.last.family != NONE:
        images[choices.base] = denoised(
            images[choices.before_last], choices.last.family, choices.last.strength, lit.noise
        )
    phasor = slow_phasor(inside)
    data = counts_in_box(measurement, box, lit.light)
    gradient = data.change(torch.from_numpy(images[choices.base])).numpy() * phasor.conj()
    maps = (
        gradient.real,
        gradient.imag,
        np.log10(lit.light[box] + 1) / 3 - 0.5,
        np.minimum(0.5 / np.sqrt(lit.light[box] + 1e-3), 1),
    )
    median = np.median(lit.light[lit.light > LIT_SHARE * lit.light.max()])
    return ThinnedInput(
        candidates=torch.from_numpy(np.stack(list(images.values())) * phasor.conj()),
        phasor=torch.from_numpy(phasor),
        maps=torch.from_numpy(np.stack(maps).astype(np.float32)),
        lit=torch.from_numpy(np.minimum(lit.light[box] / median, 1).astype(np.float32)),
        slow_px=SLOW_SHARE * width_px(measurement.probe),
        base=list(images).index(choices.base),
        noise=lit.noise,
        names=tuple(images),
        data=data if with_data else None,
    )


# --- What it learns from: one measurement thinned in many ways

FEWEST_POSITIONS = 4  # that an input is made from, however sparse the scan


@dataclass(frozen=True)
class ThinnedSet:
    """One thinning: what the network is shown, and the counts that are held out of it.

    ``counts`` (scan, n, n) are of the probe times ``probe_scale`` (scan,), and of the background
    times its square: the other photons of a position that the input has, all photons of one that
    was left out. ``is_whole``: none was.
    """

    shown: ThinnedInput
    counts: Shaped[Tensor, "scan n n"]
    probe_scale: Float[Tensor, " scan"]
    is_whole: bool

    def deviance_nats(
        self, object_: Complex[Tensor, "y x"], boxed: BoxedScan, index: Int[Tensor, " patterns"]
    ) -> Float[Tensor, " patterns"]:
        """Return the negative log-likelihood of some patterns above that of a perfect model.

        Parameters
        ----------
        object_ : (y, x)
            In the box.
        boxed
            Probe, positions, bad pixels and background.
        index
            Which patterns.
        """
        side = boxed.probe.shape[-1]
        positions = boxed.positions_px[index]
        scale = self.probe_scale[index, None, None]
        background = None if boxed.background is None else boxed.background * scale**2
        probes = probes_at(boxed.probe, positions) * scale
        waves = probes * patches_at(object_, corners_of(positions, side), side)
        expected = counts_of_modes(waves, background)
        counts = self.counts[index].to(expected.dtype)
        bad = masks_of(boxed.bad_pixels, index)
        pixels = side**2 if bad is None else (~bad).sum(dim=(-2, -1))
        return pixels * deviance_by_pattern(expected, counts, bad)

    def base_deviance_nats(
        self, boxed: BoxedScan, *, patterns_at_a_time: int
    ) -> Float[Tensor, " scan"]:
        """Return :meth:`deviance_nats` of the base, for every pattern."""
        parts = torch.arange(len(self.counts)).split(patterns_at_a_time)
        with torch.no_grad():
            base = self.shown.base_object
            return torch.cat([self.deviance_nats(base, boxed, part) for part in parts])


def thinned_set(
    measurement: Measurement,
    shown_of: Callable[[Measurement], ThinnedInput],
    *,
    photon_share: float,
    kept_share: float,
    random: np.random.Generator,
) -> ThinnedSet:
    """Return one thinning of a measurement.

    Parameters
    ----------
    measurement
        Patterns, positions, probe.
    shown_of
        Makes the input of a part of them, :func:`thinned_input`.
    photon_share
        Of each kept pattern that the input is made from.
    kept_share
        Share of the scan positions that the input is made from.
    random
        Draws photons and positions.
    """
    scan = len(measurement.positions_px)
    count = min(scan, max(FEWEST_POSITIONS, round(kept_share * scan)))
    kept = np.sort(random.permutation(scan)[:count])
    part, rest = split_photons(measurement, photon_share, random)
    counts = measurement.counts
    counts[kept] = rest.counts[kept]
    scale: np.ndarray = np.ones(scan, np.float32)
    scale[kept] = np.sqrt(1 - photon_share)
    return ThinnedSet(
        shown=shown_of(at_positions(part, kept)),
        counts=_packed(counts),
        probe_scale=torch.from_numpy(scale),
        is_whole=count == scan,
    )
