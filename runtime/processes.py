"""Many processes, one training run: what one of them reads, knows or decides, sent to the others.

    torchrun --nproc-per-node 8 ssl_mae.py --preset large-v3 --data.root recordings/

Each process reads its part of a batch's windows and sends them to the others, so all of them mix and mask the same
whole batch; each sends its own part of that through the network. The gradient is that of one process with the whole
batch, whatever the number of processes, and so is every random draw but dropout's. Without torchrun there is one
process, and nothing here does anything.

source    https://docs.pytorch.org/docs/stable/notes/ddp.html,
          https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
"""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from runtime.terminal import show

PATIENCE = timedelta(days=2)  # one process may survey an archive while the others wait; torchrun sees who has died
Item = TypeVar("Item")


def meet() -> None:
    """Find the other processes that torchrun has started."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    dist.init_process_group(timeout=PATIENCE)  # gloo for the CPU, NCCL for CUDA devices
    atexit.register(dist.destroy_process_group)
    show(f"{count()} processes share each batch")


def count() -> int:
    """Processes of this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def no_bar() -> bool | None:
    """For tqdm's `disable`: a bar in the first process only, and only on a terminal."""
    return True if rank() else None


@contextmanager
def first_on_each_machine() -> Generator[None]:
    """A block that one process of each machine is through with before the others begin: what it has found out about
    an archive they need not find out again."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    if not first:
        wait()
    yield
    if first:
        wait()


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        dist.barrier()


def span(rows: int, process: int | None = None) -> slice:
    """The rows of a batch that are this process's, or another's: equal parts, at most one row more or less."""
    index, processes = rank() if process is None else process, count()
    return slice(rows * index // processes, rows * (index + 1) // processes)


def part(rows: Tensor) -> Tensor:
    """This process's rows; the first one where there are fewer rows than processes (`joined` leaves it out)."""
    own = rows[span(len(rows))]
    return own if len(own) else rows[:1]


def share(rows: int) -> float:
    """How much of a batch this process has."""
    return len(range(rows)[span(rows)]) / rows


def gathered(rows: Tensor) -> Tensor:
    """(rows here, ...) -> (rows everywhere, ...): those of all processes in their order, however many each has."""
    if count() == 1:
        return rows
    sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(count())]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    counts = [int(size) for size in sizes]
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, counts, strict=True)])


def joined(answers: Tensor, rows: int) -> Tensor:
    """(rows here, ...) -> (rows, ...): the network's answers to a whole batch of which each process had its `part`.

    Only this process's answers carry a gradient; summed over the processes it is that of the whole.
    """
    if count() == 1:
        return answers
    own_span = span(rows)
    own = answers[: len(range(rows)[own_span])]
    every = gathered(own.detach())
    together = torch.cat([every[: own_span.start], own, every[own_span.stop :]])
    return together if len(own) else together + 0.0 * answers.sum()


def summed(*values: float) -> list[float]:
    """Numbers of all processes, added up."""
    if count() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(total)
    return [float(value) for value in total]


def mean_of_all(values: Tensor, rows: int) -> Tensor:
    """The mean over all processes' rows, from the mean over the rows here."""
    if count() == 1:
        return values
    total, every = values * rows, values.new_tensor(float(rows))
    dist.all_reduce(total)
    dist.all_reduce(every)
    return total / every


def anywhere(flag: bool) -> bool:
    """Whether it is so in any process."""
    return flag if count() == 1 else summed(float(flag))[0] > 0


def first_says(text: str) -> str:
    """What the first process has to say."""
    letters = list(text.encode()) if rank() == 0 else []
    return bytes(int(letter) for letter in gathered(torch.tensor(letters, dtype=torch.uint8))).decode()


def in_step(items: Iterable[Item]) -> Iterator[Item | None]:
    """The items of this process, then None for as long as another still has some: a network whose weights are divided
    can only be asked by all processes at once."""
    iterator = iter(items)
    while True:
        item = next(iterator, None)
        if not anywhere(item is not None):
            return
        yield item


class Call(nn.Module):
    """A network whose forward is another of its methods: what DistributedDataParallel can call."""

    def __init__(self, network: nn.Module, method: str) -> None:
        super().__init__()
        self.network, self.method = network, method

    def forward(self, *inputs: Tensor) -> Any:
        return getattr(self.network, self.method)(*inputs)


def parallel(network: nn.Module, method: str, unused: bool = False) -> Callable[..., Any]:
    """A method of a network, to be called by all processes; on the way back their gradients become one.

    unused   whether some parameters may take no part in an answer
    """
    if isinstance(network, FSDPModule) and method == "forward":
        return network  # its weights are put together when it is called, not when its forward is
    if count() == 1 or isinstance(network, FSDPModule):
        return cast(Callable[..., Any], getattr(network, method))
    return DistributedDataParallel(
        Call(network, method), broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=unused
    )


def divide(network: nn.Module, layers: Iterable[nn.Module], *methods: str) -> None:
    """Give each process a part of the weights, and with them of gradients and moments; a layer's are put together when
    it is asked, and taken apart again.

    layers    that are put together one by one
    methods   of the network that are called beside forward
    """
    if count() == 1:
        return
    for layer in layers:
        fully_shard(layer)
    fully_shard(network, reshard_after_forward=True)  # else what is only asked, a teacher, would stay whole
    for method in methods:
        register_fsdp_forward_method(network, method)


def no_exchange(call: object, network: nn.Module, last: bool) -> AbstractContextManager[object]:
    """While gradients are added up over several parts of a step, processes exchange nothing before the last."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(last)
    if isinstance(call, DistributedDataParallel) and not last:
        return call.no_sync()
    return nullcontext()


def spread_seed(seed: int) -> None:
    """Let dropout fall differently in each process; the weights are drawn already, and the same everywhere."""
    if rank():
        torch.manual_seed(seed + rank())


def whole(state: Any) -> Any:
    """A state with nothing divided in it, on the CPU; all processes must ask for it together.

    state    tensors in dictionaries and lists of any depth
    """
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, dict):
        return {key: whole(value) for key, value in cast(dict[str, Any], state).items()}
    if isinstance(state, list):
        return [whole(value) for value in cast(list[object], state)]
    return state


def divided(state: Any, like: Any) -> Any:
    """The way back from `whole`: what is divided in `like` is divided the same way.

    state    as `whole` gives it
    like     the state of the same thing as it is now
    """
    if isinstance(like, DTensor):
        return distribute_tensor(state, like.device_mesh, like.placements)
    if not isinstance(like, dict):
        return state
    parts, known = cast(dict[str, Any], state), cast(dict[str, Any], like)
    return {key: divided(value, known.get(key)) for key, value in parts.items()}


def fill(thing: Any, state: dict[str, Any]) -> None:
    """Load a `whole` state into a network, an optimiser or a schedule, divided as its weights are."""
    like: dict[str, Any] = thing.state_dict()
    if isinstance(thing, torch.optim.Optimizer):
        parameters = [parameter for group in thing.param_groups for parameter in group["params"]]
        like = {
            "state": {
                index: {name: parameters[index] for name, value in kept.items() if value.ndim}  # all but the steps
                for index, kept in state["state"].items()
            }
        }
    thing.load_state_dict(divided(state, like))


if __name__ == "__main__":
    numbers, rows = torch.arange(7.0)[:, None], 7
    print(f"{count()} process; has of {rows} rows:", len(part(numbers)))
    assert torch.equal(gathered(numbers), numbers) and torch.equal(joined(part(numbers), rows), numbers)
    assert summed(1.0, 2.0) == [1.0, 2.0] and first_says("hello") == "hello" and list(in_step("ab")) == ["a", "b"]
    layer = nn.Linear(3, 2)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(init_method=f"file://{Path(folder) / 'meeting'}", rank=0, world_size=1)
        assert span(rows) == slice(0, rows) and torch.equal(whole(layer.state_dict())["bias"], layer.bias)
        dist.destroy_process_group()
    everyone = [[7 * n // 3, 7 * (n + 1) // 3] for n in range(3)]
    print("three processes would have", everyone)
    assert everyone == [[0, 2], [2, 4], [4, 7]]
