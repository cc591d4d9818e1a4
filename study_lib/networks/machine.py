"""What a training borrows from its machine: device, threads, layout, random state, processes."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, distributed, nn

from study_lib.errors import InputError

# --- Several processes that train one network, started together by torchrun

Value = TypeVar("Value")


@dataclass(frozen=True)
class ProcessGroup:
    """Which of the processes that share the work this one is; alone it is number 0 of 1."""

    number: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.number == 0

    def share(self, rows: Tensor) -> Tensor:
        """Return this process's part of some rows."""
        return rows[self.number :: self.count]

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, the same in each."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def made_by_leader(self, make: Callable[[], Value]) -> Value:
        """Return what the leading process makes; the others do not make it themselves."""
        values: list[Any] = [make() if self.leads else None]
        if self.count > 1:
            distributed.broadcast_object_list(values)
        value: Value = values[0]
        return value

    def any(self, value: bool, device: torch.device) -> bool:
        """Return whether it is true in any process, the same in each."""
        if self.count == 1:
            return value
        return bool(self.sum(torch.tensor([float(value)], device=device)) > 0)


@contextmanager
def joined_processes(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started with this one, for a block."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup()
        return
    started_here = not distributed.is_initialized()
    if started_here:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(distributed.get_rank(), distributed.get_world_size())
    finally:
        if started_here:
            distributed.destroy_process_group()


# --- Memory layout and half precision

Module = TypeVar("Module", bound=nn.Module)


def in_layout(network: Module, layout: torch.memory_format) -> Module:
    """Return the network itself, its weights in this layout of memory."""
    arranged: Module = network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's types lack it
    return arranged


def has_fast_bfloat16() -> bool:
    """Return whether this processor multiplies bfloat16 numbers itself."""
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16"))


# --- What is borrowed from the process, and given back

Precision = Literal["float32", "bfloat16", "auto"]


def device_of(name: str) -> torch.device:
    """Return the device of a name: auto, cpu, cuda or cuda:n.

    Of several processes started together, each gets the CUDA device of its local rank.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if name in ("auto", "cuda") else torch.device(name)
    if device.type != "cuda" or (device.index or 0) >= count:
        found = ", ".join(["cpu", *(f"cuda:{index}" for index in range(count))])
        raise InputError(f"device {device}: not on this machine; choose auto or one of {found}")
    return device


def half_precision_on(device: torch.device, precision: Precision) -> bool:
    """Return whether convolutions are computed in bfloat16; auto: where the device has it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return has_fast_bfloat16()


@contextmanager
def repeatable_on(device: torch.device) -> Iterator[None]:
    """Let a CUDA device add in the same order every time, which processors do anyway."""
    if device.type != "cuda":  # asked even to change nothing, torch imports its compiler: 1.2 s
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warn_before = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        # A layer of a network that plugs in may have no repeatable algorithm: warn only.
        torch.use_deterministic_algorithms(True, warn_only=True)
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_before)


@contextmanager
def borrowed_process(device: torch.device, threads: int | None, seed: int) -> Iterator[None]:
    """Set threads, random state and repeatable algorithms for a block; put all back after it."""
    threads_before = torch.get_num_threads()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), repeatable_on(device):
        try:
            torch.set_num_threads(threads or threads_before)
            torch.manual_seed(seed)
            yield
        finally:
            torch.set_num_threads(threads_before)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return torch's global random state, of the processor and of the device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put back what :func:`random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


class TrainingStopped(KeyboardInterrupt):
    """Somebody asked the process to end, and the training has been kept up to this step."""


@dataclass
class StopRequest:
    """Whether somebody asked the process to end."""

    made: bool = False


@contextmanager
def stop_requests(*, watched: bool) -> Iterator[StopRequest]:
    """Take SIGTERM and Ctrl-C as a request, so that a block can end where it likes.

    A second signal is handled as it would be without this. Outside the main thread no signal can
    be taken; then, and if not ``watched``, no request is ever made.
    """
    request = StopRequest()
    if not watched or threading.current_thread() is not threading.main_thread():
        yield request
        return
    before: dict[int, Any] = {}

    def note_request(number: int, frame: FrameType | None) -> None:
        if not request.made:
            request.made = True
            return
        signal.signal(number, before[number])
        signal.raise_signal(number)

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, note_request)
        yield request
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
