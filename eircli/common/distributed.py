"""Rank, world size and collectives of a command's processes. With one process every collective is the identity.

torchrun starts the processes and `process_group` initialises the group: gloo for plain data and CPU tensors, NCCL for CUDA tensors.
All processes must issue the same collectives in the same order, so decisions are broadcast, never taken by one process alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from eircli.common.errors import OtherProcessFailed, RunFailed
from eircli.common.torchrun_env import Launch

T = TypeVar("T")

COLLECTIVE_TIMEOUT = timedelta(days=7)
"""Timeout of collectives: the main process may wait for a base step that another run is training."""


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's rank, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main_process() -> bool:
    """Whether this process is the one that writes files."""
    return rank() == 0


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum of all processes' tensors, of any shape that all share, bit for bit the same in all of them; a new tensor if there are several."""
    if world_size() == 1:
        return tensor
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def any_process(*flags: bool) -> list[bool]:
    """For each flag, whether it is set in any process."""
    return [number > 0 for number in all_reduce_sum(torch.tensor(flags, dtype=torch.int32)).tolist()]


def broadcast_from_main(find: Callable[[], T]) -> T:
    """What `find` returns in the main process, which alone calls it while the others wait."""
    if world_size() == 1:
        return find()
    box: list[Any] = [find() if is_main_process() else None]
    dist.broadcast_object_list(box)
    return cast(T, box[0])


def shard(total: int) -> range:
    """This process's share of the positions 0..total-1: every `world_size()`-th, from its rank on."""
    return range(rank(), total, world_size())


def gather_shards(mine: list[T]) -> list[T]:
    """The items of all processes in order of their positions, each process giving those of its `shard`."""
    if world_size() == 1:
        return mine
    shares: list[Any] = [None] * world_size()
    dist.all_gather_object(shares, mine)
    return [shares[position % world_size()][position // world_size()] for position in range(sum(map(len, shares)))]


@contextmanager
def process_group(here: Launch) -> Iterator[None]:
    """Initialise the process group of torchrun's processes for the block.

    Raises:
        RunFailed: another process was killed or lost.
        OtherProcessFailed: in place of the block's error, where another process failed before: this one's error says no
            more than that the other is gone.
    """
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(here.local_rank % torch.cuda.device_count())
    shared, rank, size = next(rendezvous("env://", timeout=timedelta(minutes=30)))
    store = _fresh_store(shared, rank, size)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT)
    try:
        yield
    except SystemExit as end:
        if not end.code:
            any_process(False)  # a barrier: leaving early would close connections that others still read from
        dist.destroy_process_group()
        raise
    except Exception as error:
        if not _is_first_to_fail(store):
            raise OtherProcessFailed from error
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise RunFailed(
                "the connection to another process is lost: it was killed, or its machine is gone; the same command goes on "
                "from the last checkpoint (torchrun --max-restarts N does so by itself)"
            ) from error
        raise


def _fresh_store(store: Store, rank: int, size: int) -> Store:
    """A part of torchrun's store that nobody has used before. After a restart the store still holds what the processes before
    left in it, such as their addresses.

    The main process makes up the part's name. The others each make up a name to ask under, so that no answer is an old one;
    it answers until all have said that they heard.
    """
    name = uuid4().hex
    if rank > 0:
        store.set(f"here/{rank}", name)
        part = store.get(f"part/{name}").decode()
        store.set(f"heard/{part}/{rank}", "")
        return PrefixStore(part, store)
    waiting = set(range(1, size))
    while waiting:
        for other in [other for other in waiting if _holds(store, f"here/{other}")]:
            store.set(f"part/{store.get(f'here/{other}').decode()}", name)
        waiting = {other for other in waiting if not _holds(store, f"heard/{name}/{other}")}
        time.sleep(0.01)
    return PrefixStore(name, store)


def _holds(store: Store, key: str) -> bool:
    """Whether a store has a key. (Some versions of torch do not declare the method.)"""
    return bool(cast(Any, store).check([key]))


def _is_first_to_fail(store: Store) -> bool:
    try:
        return bool(store.add("failed", 1) == 1)
    except RuntimeError:  # the process that keeps the store is gone
        return False
