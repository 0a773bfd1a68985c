"""What the long fault tests did and what came of it, as a table."""

from dataclasses import dataclass, field


@dataclass
class Fault:
    """``lost`` are optimizer steps that were computed again, one entry for each fault where that is measured."""

    injected: int = 0
    survived: int = 0
    lost: list[int] = field(default_factory=list)
    note: str = ""


FAULTS: dict[str, Fault] = {}


def record(kind: str, *, survived: bool, lost: int | None = None, note: str = "") -> None:
    fault = FAULTS.setdefault(kind, Fault())
    fault.injected += 1
    fault.survived += survived
    fault.note = note or fault.note
    if lost is not None:
        fault.lost.append(lost)


def table() -> str:
    rows = ["| fault | injected | survived | lost |", "| --- | ---: | ---: | --- |"]
    for kind, fault in FAULTS.items():
        lost = fault.note
        if fault.lost:
            mean = sum(fault.lost) / len(fault.lost)
            lost = f"{mean:.1f} steps on average, {max(fault.lost)} at most, computed again" + (
                f"; {lost}" if lost else ""
            )
        rows.append(f"| {kind} | {fault.injected} | {fault.survived} | {lost} |")
    return "\n".join(rows)
