# %% [markdown]
# # Swap, fine-tune and compare on digits
#
# A small ViT learns handwritten digits with plain heads. Then its heads are made to overlap without a change of
# its outputs, both versions learn on, and a comparison over seeds says what that was worth. It takes a few
# minutes of one CPU core; `SEEDS` and further keys of the recipes (`KEYS`) may be set in the environment.
#
# This is a notebook in Jupytext's percent format: open it in Jupyter with Jupytext, or run it as a script.

# %%
import os
import tempfile
from pathlib import Path

import torch

import crosshead
from crosshead.compare.comparison import compare_runs
from crosshead.recipe import load_recipe
from crosshead.train import train

KEYS = ["train.epochs=12", "log.tensorboard=false", *os.environ.get("KEYS", "").split()]
SEEDS = [int(each) for each in os.environ.get("SEEDS", "0,1,2").split(",")]
RUNS = Path(tempfile.mkdtemp(prefix="crosshead-digits-"))
torch.manual_seed(0)

# %% [markdown]
# ## A model that knows something
#
# `digits` is a shipped recipe: 1,797 pictures of 8 x 8 pixels inside scikit-learn, a ViT of 6 blocks with 5
# heads of 16 channels. `train` selects on the validation split, and reads the test split once, at the end.

# %%
recipe = load_recipe("digits", KEYS)
first = train(recipe, folder=RUNS / "first")
print(f"test accuracy {first.test['accuracy']:.1%}, {first.parameters:,} parameters")

# %% [markdown]
# ## The swap
#
# `swap_attention` puts overlapped heads in place of plain ones. Weights are those of before, the borrowed
# channels begin with a gain of 0, and so the outputs are what they were.

# %%
model = crosshead.load(RUNS / "first")
pictures = torch.rand(8, 1, 8, 8)
before = model(pictures)
report = crosshead.swap_attention(model, "overlap", overlap="index")
print(report)
print("largest change of an output:", (model(pictures) - before).abs().max().item())
assert torch.allclose(model(pictures), before, atol=1e-5)

# %% [markdown]
# ## Both learn on
#
# The question is not whether the swapped model gets better by learning on: so does the plain one. Both go on
# from the same weights, in the same order, for the same number of epochs.

# %%
START = [f"model.init_from={RUNS / 'first'}", "optimizer.lr=5e-4", *KEYS]
OVERLAP = ["model.interaction.kind=overlap", "model.interaction.overlap=index"]
for name, words in {"plain": [], "overlapped": OVERLAP}.items():
    for seed in SEEDS:
        recipe = load_recipe("digits", [*START, *words, f"name={name}", f"train.seed={seed}"])
        result = train(recipe, folder=RUNS / f"{name}-{seed}")
        print(f"{name}, seed {seed}: {result.test['accuracy']:.1%}")

# %% [markdown]
# ## What the seeds allow to be said
#
# Three seeds a side at least: two runs of one recipe differ too. A null result says what could have been found
# ([how a verdict is reached](../verdicts.md)).

# %%
if len(SEEDS) >= 3:
    comparison = compare_runs([RUNS / f"{name}-{seed}" for name in ("plain", "overlapped") for seed in SEEDS])
    for each in comparison.against:
        print(each.sentence)
else:
    print("no verdict: expected three seeds or more")

# %% [markdown]
# 359 test pictures, a model of half a million parameters, a few epochs: this says nothing of other data. What
# the project measured at more length is in [results](../results.md); a control that costs as much as the swap
# is made by [`crosshead match`](../compare.md#controls-of-equal-cost).
