"""Weights that version 0.1.0 wrote load by name, and give its outputs and gradients."""

from pathlib import Path

import pytest
import torch
from of_0_1.created import MODELS, create
from safetensors.torch import load_file

from crosshead.recipe.schema import ModelConfig
from tolerances import GRADIENT, OUTPUT, assert_close

FILES = Path(__file__).parent / "of_0_1"


@pytest.mark.parametrize("name", MODELS)
def test_weights_load_and_mean_the_same(name):
    held = load_file(FILES / f"{name}.safetensors")
    model = create(name)
    weights = {key.removeprefix("model."): t for key, t in held.items() if key.startswith("model.")}
    model.load_state_dict(weights)
    images = held["images"].requires_grad_()
    logits = model.eval()(images)
    logits.backward(torch.ones_like(logits))
    assert_close(logits, held["logits"], OUTPUT[torch.float32])
    assert_close(images.grad, held["images.grad"], GRADIENT[torch.float32])


def test_recipes_that_say_swap_are_read():
    """Every run of 0.1.0 holds a recipe with the key ``swap``, mostly null."""
    assert ModelConfig(name="resnet18", swap=None).interaction is None
    swap = {"kind": "imhsa", "init": "paper", "blocks": [0], "options": {"landmarks": 3}}
    read = ModelConfig.model_validate({"swap": swap}).interaction
    assert (
        read is not None and read.kind == "imhsa" and read.blocks == [0] and read.options == {"landmarks": 3}
    )
    with pytest.raises(ValueError, match=r"model.swap is the old name of model.interaction"):
        ModelConfig.model_validate({"swap": swap, "interaction": {"kind": "overlap"}})
