"""Denoising by similar blocks, like BM3D: what a place shows, other places show again.

Blocks that look alike are stacked and transformed together, small coefficients are set to zero, and
every pixel is the weighted mean of the blocks that cover it. A second pass takes the first one's
result to find blocks by, and to tell signal from noise. Images of several channels share their
groups. The usual packages were no choice: their licence forbids most uses, or one image takes tens
of seconds, and here it is one of hundreds (docs/related_work.md).

References
----------
Block matching and filtering in three dimensions (BM3D): Dabov, Foi, Katkovnik and Egiazarian, IEEE
Trans. Image Process. 16, 2080 (2007), doi:10.1109/TIP.2007.901238. Written from the paper, with a
discrete cosine transform along each group in place of its Haar transform, and groups of one size.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from scipy.fft import dct
from torch import Tensor

SIDE_PX = 8
THRESHOLD = 2.7  # standard deviations of the noise, as in the paper
WINDOW_SHAPE = 2.0  # of the Kaiser window on each block
GROUPS_AT_ONCE = 1024  # whose spectra are in memory, 8 MB for two channels and groups of 16
FAR = 1e6  # in units of the largest value: a block beyond the edge is like no other
Filtered = tuple[Float[Tensor, "groups frequency coefficients"], Float[Tensor, " groups"]]


def by_similar_blocks(
    image: Float[Tensor, "channels y x"],
    noise: float,
    *,
    step_px: int = 3,
    reach_px: int = 8,
    group: int = 16,
    again: bool = True,
) -> Float[Tensor, "channels y x"]:
    """Return a denoised image.

    Parameters
    ----------
    image : (channels, y, x)
        At least 8 pixels along both sides.
    noise
        Standard deviation of the noise of every channel, white.
    step_px
        Between blocks that others are compared with.
    reach_px
        How far away similar blocks are looked for, along both axes.
    group
        Blocks in a group, fewer where there are not so many places.
    again
        Whether there is a second pass.

    Raises
    ------
    ValueError
        If the image is smaller than a block.

    Examples
    --------
    Two flat halves under noise of .1, whose error falls to less than a fifth:

    >>> import numpy as np
    >>> import torch
    >>> from study_lib.solvers.block_matching import by_similar_blocks
    >>> clean = np.zeros((1, 40, 40), np.float32)
    >>> clean[:, :, 20:] = 1
    >>> noise = 0.1 * np.random.default_rng(1).standard_normal(clean.shape).astype(np.float32)
    >>> found = by_similar_blocks(torch.from_numpy(clean + noise), 0.1).numpy()
    >>> bool(np.std(found - clean) < np.std(noise) / 5)
    True
    """
    shape = (int(image.shape[1]), int(image.shape[2]))
    if min(shape) < SIDE_PX:
        raise ValueError(
            f"an image of {shape[0]} x {shape[1]} pixels is smaller than a block of {SIDE_PX} x "
            f"{SIDE_PX}; denoise it by another family"
        )
    in_reach = [min(reach_px, side - SIDE_PX) + 1 for side in shape]  # from a corner
    group = min(group, in_reach[0] * in_reach[1])
    if noise == 0:
        return image
    level = image.mean(dim=(1, 2), keepdim=True)
    image = image - level
    blocks = _transformed_blocks(image)
    places_of = _similar(image, step_px, reach_px, group)

    def thresholded(part: Int[Tensor, "groups blocks"]) -> Filtered:
        spectra = _group_spectra(blocks, part)
        kept = spectra.abs() > THRESHOLD * noise
        return spectra * kept, 1 / kept.sum(dim=(1, 2)).clamp_min(len(image))

    first = _merged(thresholded, places_of, shape, len(image))
    if not again:
        return first + level
    places_of, firsts = _similar(first, step_px, reach_px, group), _transformed_blocks(first)

    def weighed(part: Int[Tensor, "groups blocks"]) -> Filtered:
        power = _group_spectra(firsts, part).square_()
        shares = power / (power + noise**2)  # Wiener's, with the first pass as the signal
        weights = 1 / shares.square().sum(dim=(1, 2)).clamp_min(1e-3)
        return _group_spectra(blocks, part) * shares, weights

    return level + _merged(weighed, places_of, shape, len(image))


def _cosines(length: int) -> Float[Tensor, "frequency sample"]:
    """Return the orthonormal discrete cosine transform as a matrix."""
    matrix: Tensor = torch.from_numpy(dct(torch.eye(length).numpy(), axis=0, norm="ortho"))
    return matrix


def _similar(
    image: Float[Tensor, "channels y x"], step_px: int, reach_px: int, group: int
) -> Int[Tensor, "groups blocks"]:
    """Return the places of the blocks that are most like each of a grid of blocks, itself first.

    A place is the index of a block's first pixel among all places in the image, row by row.
    """
    _, height, width = image.shape
    rows, columns = _grid(height, step_px), _grid(width, step_px)
    far = FAR * (1 + float(image.abs().max()))
    wide = torch.nn.functional.pad(image, (reach_px,) * 4, value=far)
    offsets = 2 * reach_px + 1
    distances = torch.empty(offsets**2, len(rows) * len(columns))
    for index in range(offsets**2):
        row, column = divmod(index, offsets)
        there = wide[:, row : row + height, column : column + width]
        sums = (there - image).square_().sum(dim=0).clamp_max_(far).double()
        sums = torch.nn.functional.pad(sums.cumsum(dim=0).cumsum_(dim=1), (1, 0, 1, 0))
        strips = sums[rows + SIDE_PX] - sums[rows]
        distances[index] = (strips[:, columns + SIDE_PX] - strips[:, columns]).flatten()
    distances[offsets**2 // 2] = -1.0  # itself, even where others are equal: it covers its place
    nearest = distances.topk(group, dim=0, largest=False).indices
    down, right = nearest // offsets - reach_px, nearest % offsets - reach_px
    first_row = rows.repeat_interleave(len(columns)) + down
    first_column = columns.repeat(len(rows)) + right
    places: Tensor = first_row * (width - SIDE_PX + 1) + first_column
    return places.T.contiguous()


def _grid(length: int, step_px: int) -> Int[Tensor, " blocks"]:
    """Return where blocks begin along an axis, the last one at its end."""
    last = length - SIDE_PX
    return torch.tensor(sorted({*range(0, last + 1, step_px), last}))


def _transformed_blocks(
    image: Float[Tensor, "channels y x"],
) -> Float[Tensor, "places coefficients"]:
    """Return the cosine transform of the block at every place, channel after channel."""
    blocks = image.unfold(1, SIDE_PX, 1).unfold(2, SIDE_PX, 1).reshape(len(image), -1, SIDE_PX**2)
    return (blocks @ _block_cosines().T).permute(1, 0, 2).flatten(1)


def _block_cosines() -> Float[Tensor, "frequency pixel"]:
    return torch.kron(_cosines(SIDE_PX), _cosines(SIDE_PX))


def _group_spectra(
    blocks: Float[Tensor, "places coefficients"], places_of: Int[Tensor, "groups blocks"]
) -> Float[Tensor, "groups frequency coefficients"]:
    """Return the cosine transform of every group along its blocks."""
    groups, count = places_of.shape
    return _cosines(count) @ blocks[places_of.flatten()].view(groups, count, -1)


def _merged(
    filtered: Callable[[Int[Tensor, "groups blocks"]], Filtered],
    places_of: Int[Tensor, "groups blocks"],
    shape: tuple[int, int],
    channels: int,
) -> Float[Tensor, "channels y x"]:
    """Return the image whose pixels are weighted means over the blocks that cover them.

    ``filtered`` gives the spectra and the weights of some groups.
    """
    count = places_of.shape[1]
    places = (shape[0] - SIDE_PX + 1) * (shape[1] - SIDE_PX + 1)
    sums, of_place = torch.zeros(places, channels * SIDE_PX**2), torch.zeros(places)
    for part in places_of.split(GROUPS_AT_ONCE):
        spectra, weights = filtered(part)
        back = (_cosines(count).T @ spectra).mul_(weights[:, None, None])
        sums.index_add_(0, part.flatten(), back.flatten(0, 1))
        of_place.index_add_(0, part.flatten(), weights.repeat_interleave(count))
    window = torch.kaiser_window(SIDE_PX, periodic=False, beta=WINDOW_SHAPE)
    window = torch.outer(window, window).flatten()
    blocks = (sums.view(places, channels, SIDE_PX**2) @ _block_cosines()).mul_(window)
    fold = torch.nn.Fold(shape, SIDE_PX)
    image: Tensor = fold(blocks.permute(1, 2, 0))[:, 0]
    covered: Tensor = fold((of_place[:, None] * window).T[None])[0, 0]
    return image / covered
