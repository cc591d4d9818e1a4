"""Several processes that train one network, started together by torchrun."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

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

    def told_by_leader(self, make: Callable[[], Value]) -> Value:
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
