"""The registry of networks: a name in the design, a builder here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from study_lib.errors import InputError

if TYPE_CHECKING:  # a name is checked without torch, a network is built with it
    from study_lib.networks.pinn.network import NetworkInput, PatchNetwork, PtychoPinn


@dataclass(frozen=True)
class NetworkShape:
    """What a builder needs to know.

    ``channels`` patterns per group, ``side_px`` pixels along a pattern, ``filters_scale`` times the
    smallest width; ``half_precision``: compute in bfloat16 where that is safe.
    """

    channels: int
    side_px: int
    filters_scale: int
    half_precision: bool


NetworkBuilder = Callable[[NetworkShape], "PatchNetwork"]


def pinn(shape: NetworkShape) -> "PatchNetwork":
    """Return a PtychoPINN that is shown the back-propagated counts; weights from torch's state."""
    from study_lib.networks.pinn.network import BackPropagation

    return _ptychopinn(shape, BackPropagation(shape.side_px))


def pinn_amplitudes(shape: NetworkShape) -> "PatchNetwork":
    """Return a PtychoPINN that is shown the amplitudes themselves, as the published one is."""
    from study_lib.networks.pinn.network import StandardisedAmplitudes

    return _ptychopinn(shape, StandardisedAmplitudes(shape.side_px))


def _ptychopinn(shape: NetworkShape, inputs: "NetworkInput") -> "PtychoPinn":
    from study_lib.networks.pinn.network import PtychoPinn

    return PtychoPinn(
        channels=shape.channels,
        side=shape.side_px,
        filters_scale=shape.filters_scale,
        inputs=inputs,
        half_precision=shape.half_precision,
    )


NETWORKS: dict[str, NetworkBuilder] = {"pinn": pinn, "pinn-amplitudes": pinn_amplitudes}


def require_network(name: str) -> str:
    """Return ``name`` if a network has it.

    Raises
    ------
    InputError
        If none has.
    """
    if name in NETWORKS:
        return name
    raise InputError(
        f"{name}: no such network; choose one of {', '.join(sorted(NETWORKS))}, or add it to "
        "study_lib.networks.registry.NETWORKS"
    )


def build_network(name: str, shape: NetworkShape) -> "PatchNetwork":
    """Return a new network.

    Raises
    ------
    InputError
        If no network has this name.
    """
    return NETWORKS[require_network(name)](shape)
