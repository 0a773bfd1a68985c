"""A run that version 0.1.0 began, two epochs of digits stopped after the first: it loads, and it goes on."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

import crosshead
from crosshead.recipe.compose import load_recipe
from crosshead.train.run import train
from tolerances import GRADIENT, assert_close

RUN = Path(__file__).parent / "run_of_0_1"


def test_it_loads_in_one_call():
    model = crosshead.load(RUN)
    held = load_file(RUN / "best" / "ema.safetensors")
    assert all(torch.equal(tensor, held[name]) for name, tensor in model.state_dict().items())
    assert len(model.pretrained_cfg["label_names"]) == 10


def test_it_goes_on_to_where_that_version_went(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(RUN, folder, symlinks=True)
    result = train(load_recipe(folder / "recipe.yaml"), folder=folder, resume=True)
    assert result.status == "finished"
    got = load_file(folder / "checkpoints" / "step-00000004" / "model.safetensors")
    for name, want in load_file(RUN / "after.safetensors").items():
        assert_close(got[name], want, GRADIENT[torch.float32], name)
