"""What there is of one kind, by name: ours, and what other packages offer through entry points."""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(dict[str, T], Generic[T]):
    """Members by name, in the order in which they came.

    A package offers one under the member's name in the entry point group ``group``; the module that it names registers
    the member when it is imported. That happens when the name is asked for and not known, or where a list of all is:
    nothing that other packages offer is imported before.
    """

    def __init__(self, group: str, what: str) -> None:
        super().__init__()
        self.group, self.what = group, what

    def add(self, name: str, member: T) -> T:
        """Makes ``member`` known; the same one again changes nothing. Raises ValueError for a name that is taken."""
        if self.setdefault(name, member) is not member:
            raise ValueError(f"{self.what} {name!r} is registered already; choose another name")
        return member

    def find(self, name: str, key: str = "") -> T:
        """The member ``name``, loaded if another package offers it; ``key`` is where the name was read, for messages.

        Raises:
            ValueError: there is none, or its package is broken.
        """
        if name not in self:
            self._load(name, key)
        return self[name]

    def names(self) -> list[str]:
        """All names, without loading what is not."""
        return list(dict.fromkeys([*self, *self._offered()]))

    def load_all(self) -> dict[str, str]:
        """Loads what is offered. What of it is broken costs nothing else: by name, what is wrong with it."""
        faults = {}
        for name in self.names():
            try:
                self.find(name)
            except ValueError as error:
                faults[name] = str(error)
        return faults

    def _offered(self) -> dict[str, list[EntryPoint]]:
        offered: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            offered.setdefault(point.name, []).append(point)
        return offered

    def _load(self, name: str, key: str) -> None:
        points = self._offered().get(name)
        if points is None:
            raise ValueError(f"{key}{': ' if key else ''}{self._unknown(name)}")
        packages = " and ".join(dict.fromkeys(map(_package, points)))
        if len({point.value for point in points}) > 1:
            raise ValueError(f"{self.what} {name!r} is offered by {packages}; remove all but one of them")
        try:
            points[0].load()
        except Exception as error:  # whatever a module of someone else's raises
            raise ValueError(
                f"{self.what} {name!r} is offered by {packages}, whose {points[0].value} can't be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
        if name not in self:
            raise ValueError(
                f"{self.what} {name!r} is offered by {packages}, whose {points[0].value} registers none of that name"
            )

    def _unknown(self, name: str) -> str:
        known: Sequence[str] = self.names()
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"no {self.what} {name!r}; {hint}known are {', '.join(known)}"


def _package(point: EntryPoint) -> str:
    return "a package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
