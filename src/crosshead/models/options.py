"""Options of a recipe that go to a class as they are."""

import inspect
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Any


def check_options(
    name: str,
    build: Callable[..., Any],
    options: Mapping[str, Any],
    where: str,
    *,
    beside: Collection[str] = (),
) -> None:
    """Whether ``build``, which recipes call ``name``, takes ``options``: its keyword-only arguments, but for those of
    ``beside``. ``where`` in the recipe the options stand.

    Raises:
        ValueError: it has no such option; the message names those that it has.
    """
    known = [
        option.name
        for option in inspect.signature(build).parameters.values()
        if option.kind is inspect.Parameter.KEYWORD_ONLY and option.name not in beside
    ]
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, n=1)
            hint = f", the nearest is {near[0]!r}" if near else ""
            raise ValueError(
                f"{where}: {name} has no option {option!r}{hint}; it knows {', '.join(sorted(known)) or 'none'}"
            )
