"""Reads the golden files: numbers that independent implementations computed (tests/golden/README.md)."""

import json
from pathlib import Path

import torch
from safetensors import safe_open

FOLDER = Path(__file__).parent / "golden"


def load_golden(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """The case (its sizes) and the tensors of one golden file."""
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as file:
        case = json.loads(file.metadata()["case"])
        return case, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
