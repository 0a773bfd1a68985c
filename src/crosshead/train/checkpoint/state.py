"""What a run is made of at one moment: its tensors, its place in the data, and its counts."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from crosshead.train.distributed.sharding import shared_out, whole

# What the recipe decides of a group of parameters. Its rate is the schedule's, which sets it before every step.
_FROM_THE_RECIPE = {"initial_lr", "lr_scale", "weight_decay", "betas", "eps"}
MODEL, EMA, OPTIMIZER = "model", "ema", "optimizer"  # the names of a checkpoint's files


@dataclass
class Progress:
    """The place in the data, and what was counted on the way. Exact in JSON.

    ``samples`` counts this epoch's images over all processes, ``step`` optimizer steps from the start of the
    run. An epoch whose images are all seen and that was not evaluated yet is a state like any other.
    """

    epoch: int = 0
    samples: int = 0
    step: int = 0
    skipped_steps: int = 0  # the bad ones, and those that looked for float16's scale
    bad_steps: int = 0
    bad_in_a_row: int = 0
    epoch_loss: float = 0.0  # sum over the epoch's good steps
    epoch_steps: int = 0
    broken: list[str] = field(default_factory=list)
    best_step: int | None = None
    best: dict[str, float] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)  # of the last validation
    details: dict[str, Any] = field(default_factory=dict)  # of the best validation: tables
    since_best: int = 0  # validations after it
    validated: int | None = None  # the step of the last one
    unjudged: int = 0  # validations in a row, up to the last, that were no judgement

    def next_epoch(self) -> None:
        self.epoch += 1
        self.samples = 0
        self.epoch_loss, self.epoch_steps = 0.0, 0


@dataclass
class Clock:
    """Time spent and images seen in training steps, and the time ``elapsed`` in all, over everything that a run was
    stopped and resumed; no two runs agree on it."""

    seconds: float = 0.0
    images: int = 0
    elapsed: float = 0.0

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0


@dataclass
class TrainState:
    """The live objects of a run; ``model`` without any wrapper."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: ModelEmaV3 | None
    scaler: torch.amp.GradScaler | None
    progress: Progress = field(default_factory=Progress)
    clock: Clock = field(default_factory=Clock)

    @property
    def evaluated_model(self) -> nn.Module:
        """The averaged weights where there are any."""
        return self.model if self.ema is None else self.ema.module

    @property
    def evaluated_weights(self) -> Literal["model", "ema"]:
        return "model" if self.ema is None else "ema"

    def snapshot(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Copies of all tensors on the CPU, by file, and everything else as plain values for JSON.

        All processes call it where the model is sharded.
        """
        optimizer_tensors, optimizer_values = flatten_optimizer(self.model, self.optimizer)
        tensors = {MODEL: _copy(self.model.state_dict()), OPTIMIZER: _copy(optimizer_tensors)}
        if self.ema is not None:
            tensors[EMA] = _copy(self.ema.module.state_dict())
        values = {
            "progress": asdict(self.progress),
            "clock": asdict(self.clock),
            "optimizer": optimizer_values,
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }
        return tensors, values

    def restore(self, tensors: dict[str, dict[str, Tensor]], values: dict[str, Any]) -> None:
        """Take over a snapshot.

        Raises:
            ValueError: it belongs to another model, or to a recipe with another kind of average or precision.
        """
        load_weights(self.model, tensors[MODEL], "the checkpoint")
        if self.ema is not None:
            load_weights(self.ema.module, tensors.get(EMA, tensors[MODEL]), "the checkpoint's average")
        restore_optimizer(self.model, self.optimizer, tensors[OPTIMIZER], values["optimizer"])
        if self.scaler is not None and values["scaler"] is not None:
            self.scaler.load_state_dict(values["scaler"])
        self.progress = Progress(**values["progress"])
        self.clock = Clock(**values["clock"])


def load_weights(model: nn.Module, weights: dict[str, Tensor], what: str) -> None:
    """``load_state_dict`` with a message that names what does not fit.

    Raises:
        ValueError: names or shapes differ.
    """
    own = model.state_dict()
    missing = sorted(own.keys() - weights.keys())
    unknown = sorted(weights.keys() - own.keys())
    shapes = [
        f"{name} is {tuple(weights[name].shape)} there and {tuple(own[name].shape)} in the model"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if missing or unknown or shapes:
        parts = [
            f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
            if names
        ]
        raise ValueError(
            f"{what} does not fit this model: {'; '.join(parts)}. Use the model, overlap schedule, image size and "
            "class count that it was trained with"
        )
    model.load_state_dict(shared_out(weights, own))


def flatten_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's state without pickle: tensors named "parameter/key", the rest as plain values.

    Raises:
        TypeError: the optimizer keeps something that neither safetensors nor JSON can hold.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            store = tensors if isinstance(value, Tensor) else scalars
            store[f"{names[id(parameter)]}/{key}"] = _plain(value)
    groups = [
        {key: _plain(value) for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    return tensors, {"groups": groups, "scalars": scalars}


def restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], values: dict[str, Any]
) -> None:
    """The inverse of ``flatten_optimizer``, except for what the recipe says, which may have changed since."""
    named = dict(model.named_parameters())
    names = {id(parameter): name for name, parameter in named.items()}
    order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[str, dict[str, Any]] = {}
    shares = shared_out(tensors, {path: named[path.rpartition("/")[0]] for path in tensors})
    for path, value in {**shares, **values["scalars"]}.items():
        name, _, key = path.rpartition("/")
        states.setdefault(name, {})[key] = value
    groups = _groups(optimizer.state_dict()["param_groups"], values["groups"])
    numbered = {number: states[name] for number, name in enumerate(order) if name in states}
    optimizer.load_state_dict({"state": numbered, "param_groups": groups})


def _groups(own: list[dict[str, Any]], saved: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The optimizer's own groups with what it has learned or counted by group.

    Without weight decay there are fewer groups than with it; what is counted is the same in all.
    """
    groups = []
    for place, group in enumerate(own):
        before = saved[place] if len(saved) == len(own) else saved[0]
        kept = {key: _tupled(value) for key, value in before.items() if key not in _FROM_THE_RECIPE}
        groups.append({**group, **kept, "params": group["params"]})
    return groups


def _copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU, one storage each (safetensors refuses shared ones)."""
    return {
        name: whole(tensor.detach()).to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor | bool | int | float | str | None):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    raise TypeError(
        f"the optimizer keeps a {type(value).__name__} in its state, which a checkpoint cannot hold"
    )


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
