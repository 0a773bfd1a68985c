"""A model that outgrows one device, spread over the processes (FSDP2), and its tensors, whole again."""

import warnings

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from crosshead.train.distributed.groups import World


def shard(model: nn.Module, world: World, device: torch.device) -> None:
    """Leave of every parameter the share of this process, in place; all processes call it.

    Each block of a stack of equal ones is gathered by itself, when it is at work.
    """
    # Blocks that return a view are safe as long as nothing is added to it in place, and timm's blocks add out of place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
    mesh = init_device_mesh(device.type, (world.size,))
    for stack in reversed([*model.modules()]):  # inner stacks first, as FSDP2 wants
        if isinstance(stack, nn.Sequential | nn.ModuleList) and _is_stack_of_blocks(stack):
            for block in stack:
                fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _is_stack_of_blocks(stack: nn.Module) -> bool:
    children = [*stack.children()]
    return len({type(child) for child in children}) == 1 and any(True for _ in children[0].children())


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """All of a sharded tensor, gathered from all processes; any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shared_out(values: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """This process's share of each of ``values``, laid out as that of the same name in ``like`` is."""
    shares = dict(values)
    for name, value in values.items():
        own = like[name]
        if isinstance(own, DTensor) and value.shape == own.shape:
            shares[name] = distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
    return shares
