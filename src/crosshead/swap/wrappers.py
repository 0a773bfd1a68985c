"""What others put around a model, or into it: ``torch.compile``, data parallelism, FSDP, PEFT's adapters.

Looking and saving see through what is only around a model. A change is refused where the wrapper holds on to what was
there: to parameters, to graphs, to layers. All are told by the names of their classes, whose import takes longer than a
swap.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from .sites import Site, parents_of

# What ``torch.compile``, FSDP and checkpointing call the module that they are put around.
_INNER = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_COMPILED, _PARALLEL = {"OptimizedModule"}, {"DataParallel", "DistributedDataParallel"}
_SHARDED = {"FullyShardedDataParallel", "FSDPModule"}
_FOR_SEVERAL = {"DistributedDataParallel"} | _SHARDED
# PEFT's whole models, and what it puts around single layers.
_ADAPTED_MODELS, _ADAPTED_LAYERS = {"PeftModel", "BaseTuner"}, {"BaseTunerLayer", "AuxiliaryTrainingWrapper"}


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside what ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel`` are put around."""
    while True:
        if _is(model, _COMPILED):
            model = model._orig_mod  # type: ignore[assignment]
        elif _is(model, _PARALLEL):
            model = model.module  # type: ignore[assignment]
        else:
            return model


def plain_path(path: str) -> str:
    """The path of a module or parameter as it is without such modules on the way."""
    return ".".join(step for step in path.split(".") if step not in _INNER)


def running_eagerly(model: nn.Module) -> AbstractContextManager[Any]:
    """While it lasts nothing compiled in ``model`` runs as a graph, which would pass over hooks that came later."""
    compiled = any(
        _is(module, _COMPILED) or getattr(module, "_compiled_call_impl", None) for module in model.modules()
    )
    found: AbstractContextManager[Any] = (
        torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    )
    return found


def check_free(model: nn.Module, what: str) -> None:
    """Raises ValueError where a wrapper holds on to the layers of now; ``what`` shall be done: ``swap``."""
    if any(_is(module, _COMPILED) for module in model.modules()):
        raise ValueError(
            f"the model is compiled (torch.compile put a module of its own around it); {what} what is inside, "
            "model._orig_mod, and compile after that"
        )
    if wrapped := [type(module).__name__ for module in model.modules() if _is(module, _FOR_SEVERAL)]:
        raise ValueError(
            f"the model is wrapped for several processes ({wrapped[0]}), whose gradients are tied to the parameters of "
            f"now; {what} first, then wrap, and make the optimizer after that"
        )


def check_whole(model: nn.Module, what: str) -> None:
    """Raises ValueError for parameters that FSDP has sharded, of which no process has all."""
    if sharded := [type(module).__name__ for module in model.modules() if _is(module, _SHARDED)]:
        raise ValueError(
            f"the model's parameters are sharded ({sharded[0]}), and {what} wants whole ones: gather them "
            "(torch.distributed.checkpoint.state_dict.get_model_state_dict with StateDictOptions(full_state_dict=True))"
            " and load them into a model that is not wrapped"
        )


def check_no_adapters(model: nn.Module) -> None:
    """ValueError for a model with PEFT's adapters in it, of which a saved model knows nothing."""
    for module in model.modules():
        if _is(module, _ADAPTED_MODELS | _ADAPTED_LAYERS):
            raise ValueError(
                f"the model has adapters of PEFT in it ({type(module).__name__}), which are no part of a saved model: "
                "save what model.merge_and_unload() gives, or the model before the adapters and these by their own "
                "save_pretrained"
            )


def check_adapters_inside(model: nn.Module, sites: Sequence[Site]) -> None:
    """ValueError for attention that one of PEFT's adapters is put around: it computes past the module in it.

    Adapters of the layers inside attention are called as these are, and stay.
    """
    for site in sites:
        around = next((p for p in parents_of(model, site.path) if _is(p, _ADAPTED_LAYERS)), None)
        if around is not None:
            raise ValueError(
                f"block {site.block} ({site.path}): one of PEFT's adapters ({type(around).__name__}) is put around the "
                "whole attention, and would pass over what its heads exchange; swap first, then add adapters, to the "
                "layers inside attention"
            )


def _is(module: nn.Module, names: set[str]) -> bool:
    return not names.isdisjoint(cls.__name__ for cls in type(module).__mro__)
