"""What is in a file of weights, whatever wrote it: safetensors or PyTorch's pickles, told by their first bytes.

Nothing in a file is run. PyTorch's restricted unpickler reads it, and what it refuses (an ``argparse.Namespace`` beside
the weights, a numpy scalar, the class of a model that was saved whole) is stood in for by objects that do nothing.
"""

import pickletools
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Dictionaries of other makes; their items are set one by one, which only a true dictionary takes.
_MAPPINGS = (
    "yacs.config.CfgNode",
    "easydict.EasyDict",
    "addict.addict.Dict",
    "mmengine.config.config.ConfigDict",
)
_NUMPY_DTYPES = {
    "f2": torch.float16, "f4": torch.float32, "f8": torch.float64, "i1": torch.int8, "i2": torch.int16,
    "i4": torch.int32, "i8": torch.int64, "u1": torch.uint8, "b1": torch.bool,
}  # fmt: skip
_WRAPPERS = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}  # anywhere in a name
_DEPTH = 4


@dataclass(frozen=True)
class State:
    """Tensors by name, and under which keys of the file they lie."""

    place: str
    tensors: Mapping[str, Tensor]


class StandIn:
    """An object of a class that is not loaded: it takes whatever it is given, and does nothing."""

    state: Any = None

    def __new__(cls, *args: Any) -> "StandIn":
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype(StandIn):
    def __init__(self, name: str = "", *flags: Any) -> None:
        self.name = name


class _Array(StandIn):
    """A numpy array."""

    def tensor(self) -> Tensor | None:
        """None where it doesn't hold plain numbers of this machine's byte order."""
        try:
            _, shape, dtype, fortran, raw = self.state
            kind = _NUMPY_DTYPES[dtype.name]
            if dtype.state[1] == ">" or not isinstance(raw, bytes):
                return None
            flat = torch.frombuffer(bytearray(raw), dtype=kind) if raw else torch.empty(0, dtype=kind)
            return (
                flat.reshape(shape[::-1]).permute(*range(len(shape))[::-1])
                if fortran
                else flat.reshape(shape)
            )
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
            return None


def _reconstruct(*args: Any) -> _Array:
    return _Array()


def _mapping(*args: Any) -> dict[Any, Any]:
    return {}


def read_content(file: Path) -> Any:
    """What was saved: tensors in dictionaries, and stand-ins.

    Raises:
        ValueError: it is no file of weights, or a damaged one.
    """
    try:
        with open(file, "rb") as handle:
            start = handle.read(64)
    except OSError as error:
        raise ValueError(f"{file}: not a readable file of weights ({error.strerror})") from error
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return _unpickled(file)
    if start[8:9] == b"{":
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{file}: not a readable safetensors file ({error})") from error
    raise ValueError(
        f"{file}: not a readable file of weights, but {_kind_of(start)}; expected safetensors or torch.save's"
    )


def _kind_of(start: bytes) -> str:
    if not start:
        return "empty"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, whose content `git lfs pull` fetches"
    if start.lstrip()[:1] == b"<":
        return "a web page"
    return f"one that begins with {start[:8]!r}"


def _unpickled(file: Path) -> Any:
    try:
        names = _foreign_names(file)
        with torch.serialization.safe_globals([(_stand_in(name), name) for name in names]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file brings about any
        told = re.search(r"Unpickler error: (.*)", str(error))
        reason = told[1] if told else f"{type(error).__name__} {error}".splitlines()[0]
        raise ValueError(
            f"{file}: damaged, or not a checkpoint that can be read without running code from it ({reason[:200]}); "
            "save its state dict alone, with torch.save(model.state_dict(), PATH)"
        ) from error


def _foreign_names(file: Path) -> set[str]:
    """The classes and functions that a file names and PyTorch's restricted unpickler does not know."""
    with open(file, "rb") as handle:
        if handle.read(2) == b"PK":
            return set(torch.serialization.get_unsafe_globals_in_checkpoint(file))
        handle.seek(0)
        names = set()
        for _ in range(
            4
        ):  # before 1.6 PyTorch wrote a number, a version, the system and the object, one by one
            operations = pickletools.genops(handle)
            names |= {str(word).replace(" ", ".", 1) for code, word, _ in operations if code.name == "GLOBAL"}
        # What PyTorch knows it takes first. Python 3 writes the old names of Python 2 there.
        return {name.replace("__builtin__.", "builtins.") for name in names}


def _stand_in(name: str) -> Any:
    if name == "numpy.ndarray":
        return _Array
    if name == "numpy.dtype":
        return _Dtype
    if name.endswith("multiarray._reconstruct"):
        return _reconstruct
    if name in _MAPPINGS:
        return OrderedDict
    if name == "collections.defaultdict":
        return _mapping
    return type(name, (StandIn,), {})


def states_in(content: Any) -> list[State]:
    """Every dictionary with tensors in it; those of optimizers are left out."""
    return list(_walk(content, (), set()))


def _walk(value: Any, place: tuple[str, ...], seen: set[int]) -> Iterator[State]:
    items = _of_module(value) if isinstance(value, StandIn) else value
    if not isinstance(items, Mapping) or len(place) > _DEPTH or id(value) in seen:
        return
    seen.add(id(value))
    named = {key: _as_tensor(each) for key, each in items.items() if isinstance(key, str)}
    tensors = {_unwrapped(key): tensor for key, tensor in named.items() if tensor is not None}
    if tensors:
        yield State(".".join(place), tensors)
    for key, each in items.items():
        if isinstance(key, str) and not key.startswith("optim"):
            yield from _walk(each, (*place, key), seen)


def _as_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value.detach()
    return value.tensor() if isinstance(value, _Array) else None


def _of_module(module: StandIn, prefix: str = "", depth: int = 0) -> dict[str, Tensor]:
    """The state of a module that was saved whole."""
    parts = module.state
    if not isinstance(parts, dict) or not isinstance(parts.get("_modules"), dict) or depth > 50:
        return {}
    passing = parts.get("_non_persistent_buffers_set") or ()
    found = {}
    for kind in ("_parameters", "_buffers"):
        for name, tensor in (parts.get(kind) or {}).items():
            if isinstance(tensor, Tensor) and name not in passing:
                found[f"{prefix}{name}"] = tensor
    for name, child in parts["_modules"].items():
        if isinstance(child, StandIn):
            found |= _of_module(child, f"{prefix}{name}.", depth + 1)
    return found


def _unwrapped(name: str) -> str:
    """A name without what compiling, sharding and copies over processes put into it."""
    kept = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    return re.sub(r"^(module\.)+", "", kept)


def described(content: Any) -> str:
    """The top-level keys of a file, in words."""
    if not isinstance(content, Mapping):
        return f"a {_word(content)}"
    shown = [f"{key} ({_word(value)})" for key, value in list(content.items())[:6]]
    return f"the keys {', '.join(shown)}{', ...' if len(content) > 6 else ''}" if shown else "nothing"


def _word(value: Any) -> str:
    if isinstance(value, StandIn):
        return f"{type(value).__name__}, which is not loaded: a file is read without running code from it"
    return f"{len(value)} entries" if isinstance(value, Mapping) else type(value).__name__
