"""Interactions in a run: what they learn and follow is kept, and a run resumes exactly."""

import pytest
from runs import StopAfter, assert_same_ending, ending, tiny_recipe

from crosshead.train import train

ARGS = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "attn_drop_rate": 0.1}


@pytest.mark.parametrize(
    "interaction", [{"kind": "reattention", "init": "paper"}, {"kind": "dcmha"}], ids=lambda i: i["kind"]
)
def test_a_run_resumes_exactly(tmp_path, interaction):
    """With dropout in chunks, gradient checkpointing, accumulation, and running statistics."""
    recipe = tiny_recipe(
        model={"interaction": interaction, "args": ARGS},
        train={"epochs": 2, "grad_checkpointing": True},
    )
    assert train(recipe, folder=tmp_path / "whole").status == "finished"
    assert train(recipe, folder=tmp_path / "run", callback=StopAfter(5)).status == "stopped"
    assert train(recipe, folder=tmp_path / "run", resume=True).status == "finished"
    assert_same_ending(tmp_path / "run", tmp_path / "whole")
    if interaction["kind"] == "reattention":
        assert any("reattention_norm.running_var" in name for name in ending(tmp_path / "run")["tensors"])
