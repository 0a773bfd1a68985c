"""Which of a file's tensors are a model's: under which keys, behind which prefix, and by whose names."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from .authors import from_authors_state, has_marks
from .transformers_models import from_transformers
from .weight_files import State

_AVERAGED, _LEARNING = {"ema", "swa", "teacher", "averaged"}, {"student", "momentum"}
_COUNTS = {"n_averaged"}  # of torch.optim.swa_utils.AveragedModel, beside the weights
_ALIKE = 0.9  # of the most names that fit: such sets of tensors are chosen among by what they are called


@dataclass(frozen=True)
class Fit:
    """Tensors under the model's names, as far as they have any: how many do, and how many have its shapes; ``others``
    would have fitted too."""

    place: str
    tensors: Mapping[str, Tensor]
    names: int
    shapes: int
    others: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """0 for averaged weights, 1 for plain ones, 2 for those of a model that another one is taken from."""
        words = set(re.split(r"[._/ ]", self.place.lower()))
        return 0 if words & _AVERAGED else 2 if words & _LEARNING else 1


def best_fit(
    own: Mapping[str, Tensor],
    states: Sequence[State],
    adapt: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    file: Path,
) -> Fit:
    """The tensors that fit most of the names of ``own``; where several do, the averaged ones, then the plain ones.

    ``adapt`` is tried where hardly a name fits: timm's way from others' names to its own.

    Raises:
        ValueError: several fit alike, and nothing says which are meant.
    """
    fits = [fit for state in states for fit in _fits(own, state)]
    most = max((fit.names for fit in fits), default=0)
    if 2 * most < len(own):
        adapted = [State(state.place, adapt(state.tensors)) for state in states]
        fits += [fit for state in adapted for fit in _behind_prefixes(own, state)]
        most = max((fit.names for fit in fits), default=0)
    if not most:
        largest = max(states, key=lambda state: len(state.tensors))
        return Fit(_in_words(largest.place, ""), largest.tensors, 0, 0)
    alike = [fit for fit in fits if fit.names >= _ALIKE * most]
    alike.sort(key=lambda fit: (fit.rank, -fit.names, -fit.shapes))
    best, *rest = alike
    for other in rest:
        same_claim = (other.rank, other.names, other.shapes) == (best.rank, best.names, best.shapes)
        if same_claim and not _equal(best, other):
            raise ValueError(
                f"{file} holds several sets of weights that fit: under {best.place} and under {other.place}; save the "
                "one that is meant in a file of its own"
            )
    return replace(best, others=tuple(other.place for other in rest if not _equal(best, other)))


def _fits(own: Mapping[str, Tensor], state: State) -> list[Fit]:
    """By the names that they have or, where these are not all of the model's, by those that they are turned into."""
    fits = list(_behind_prefixes(own, state))
    if any(fit.shapes == len(own) for fit in fits):
        return fits
    for translate in (_from_authors, from_transformers):
        if (turned := translate(state.tensors)) is not None:
            return list(_behind_prefixes(own, State(state.place, turned)))
    return fits


def _from_authors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    if not has_marks(dict(tensors)):
        return None
    try:
        return dict(from_authors_state(dict(tensors)).model.state_dict())
    except ValueError:  # Microsoft's and timm's Swin have such names too
        return None


def _behind_prefixes(own: Mapping[str, Tensor], state: State) -> Iterator[Fit]:
    names, shapes = Counter[str](), Counter[str]()
    for name, tensor in state.tensors.items():
        parts = name.split(".")
        for place in range(len(parts)):
            rest = ".".join(parts[place:])
            if rest in own:
                prefix = name.removesuffix(rest)
                names[prefix] += 1
                shapes[prefix] += tensor.shape == own[rest].shape
    for prefix, count in names.items():
        inner = {
            name.removeprefix(prefix): tensor
            for name, tensor in state.tensors.items()
            if name.startswith(prefix) and name not in _COUNTS
        }
        yield Fit(_in_words(state.place, prefix), inner, count, shapes[prefix])


def _in_words(place: str, prefix: str) -> str:
    return " ".join(part for part in (place or "the top", prefix and f"{prefix}*") if part)


def _equal(one: Fit, other: Fit) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        tensor.equal(other.tensors[name]) for name, tensor in one.tensors.items()
    )
