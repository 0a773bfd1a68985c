"""Under torchrun every process knows the answer; one says it."""

import os


def is_rank0() -> bool:
    """Whether this is the process that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def print0(line: str) -> None:
    if is_rank0():
        print(line, flush=True)
