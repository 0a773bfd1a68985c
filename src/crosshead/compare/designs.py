"""Whether two groups of runs pair: decided by how they were made, never by what came out."""

from collections.abc import Sequence

from crosshead.compare.runs import FinishedRun, Group


def unpaired_because(a: Group, b: Group) -> str | None:
    """Why the runs of two groups don't pair; None where they do.

    They do with equal seeds, where the runs of each seed saw the same data in the same order and began with the same
    values in every tensor that both have in one shape.
    """
    if a.seeds != b.seeds:
        return "their seeds are not the same"
    for one, other in zip(a.runs, b.runs, strict=True):
        if one.design is None or other.design is None:
            return "how the runs began was not recorded"
        if any(one.design[key] != other.design[key] for key in ("seed", "order", "train")):
            return "they saw other data, or in another order"
        same, shared = shared_tensors(one, other)
        if not same:
            return "their models have no tensor in common"
        if same < shared:
            return (
                f"{shared - same} of the {shared} tensors that both models have began with other values "
                "(train.paired_init=true has them begin alike)"
            )
    return None


def shared_tensors(one: FinishedRun, other: FinishedRun) -> tuple[int, int]:
    """How many tensors began alike, and how many have one name and shape in both."""
    assert one.design is not None and other.design is not None
    first, second = one.design["tensors"], other.design["tensors"]
    shared = [n for n in first if n in second and first[n].split()[0] == second[n].split()[0]]
    return sum(first[name] == second[name] for name in shared), len(shared)


def correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Of the seeds' values in pairs (Pearson's); None where it is undefined."""
    n = len(a)
    mean_a, mean_b = sum(a) / n, sum(b) / n
    across = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    squares = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    return across / squares**0.5 if n > 2 and squares > 1e-20 else None
