# %% [markdown]
# # Heads of a real ViT
#
# What do the heads of a pretrained ViT look at, how much do they say the same, and what does a swap leave of
# that? timm fetches DINOv2's ViT-S/14 (84 MB) where there is a network. Where there is none, a small ViT is
# trained on digits in its place: all that follows is the same, and says less. `HF_HUB_OFFLINE=1` keeps it from
# trying.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import timm
import torch
from sklearn.datasets import load_digits, load_sample_image

import crosshead
from crosshead.heads import attention_maps, measure_heads
from crosshead.recipe import load_recipe
from crosshead.train import train

NAME = "vit_small_patch14_dinov2"
KEYS = [
    "train.epochs=12",
    "log.tensorboard=false",
    *os.environ.get("KEYS", "").split(),
]  # of what takes its place
torch.manual_seed(0)


# %%
def pretrained():
    """DINOv2's ViT-S/14 and a photograph of 224 pixels, as it wants them."""
    model = timm.create_model(NAME, pretrained=True, img_size=224, num_classes=0).eval()
    photograph = torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1).float() / 255
    picture = torch.nn.functional.interpolate(
        photograph[None], size=(224, 224), mode="bilinear", antialias=True
    )
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    return model, (picture - mean) / std, picture[0].permute(1, 2, 0)


def small():
    """A ViT that learned digits just now, and one of them."""
    folder = Path(tempfile.mkdtemp(prefix="crosshead-heads-")) / "digits"
    train(load_recipe("digits", KEYS), folder=folder)
    model = crosshead.load(folder)
    picture = torch.tensor(load_digits().images[3] / 16, dtype=torch.float32)[None, None]
    mean, std = (model.pretrained_cfg[name][0] for name in ("mean", "std"))
    return model, (picture - mean) / std, picture[0, 0]


try:
    model, picture, shown = pretrained()
    print("weights fetched:", NAME)
except Exception as error:  # whatever a network may do
    print(f"no pretrained weights ({type(error).__name__}): a small ViT learns digits instead")
    model, picture, shown = small()

# %% [markdown]
# ## Where the heads look
#
# For the mean of all patches, block by block and head by head. `attention_maps` reads the layers while the
# model runs as it always does; the outputs stay bitwise what they were.

# %%
layers = attention_maps(model, picture, "mean")
chosen = [layers[0], layers[len(layers) // 2], layers[-1]]
heads = len(chosen[0].heads)
figure, axes = plt.subplots(
    len(chosen), heads + 1, figsize=(1.4 * (heads + 1), 1.5 * len(chosen)), layout="constrained"
)
for row, layer in zip(axes, chosen, strict=True):
    row[0].imshow(shown, cmap="gray")
    row[0].set_ylabel(f"block {layer.block}")
    for head, place in enumerate(row[1:]):
        place.imshow(layer.maps[head], cmap="inferno")
        place.set_title(f"head {layer.heads[head]}", fontsize=8)
    for place in row:
        place.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## In numbers
#
# `entropy` is 1 where a head looks everywhere alike; `effective_heads_cka` counts how many heads' outputs
# differ, from 1 to the number of heads ([all measures](../heads.md#measures)).

# %%
print(f"{'block':>5} {'entropy':>8} {'distance':>9} {'effective heads':>16}")
for layer in measure_heads(model, [picture]):
    names = ("entropy", "distance_ratio", "effective_heads_cka")
    entropy, distance, effective = (float(torch.as_tensor(layer.values[name]).mean()) for name in names)
    print(f"{layer.block:5} {entropy:8.2f} {distance:9.2f} {effective:16.2f}")

# %% [markdown]
# ## After a swap
#
# With overlapped heads put in, outputs are what they were up to float32 rounding, and so are the maps: each
# head sees its neighbours' channels with a gain of 0 until it learns. What a swapped model makes of them is a
# matter of training ([fine-tune](../finetune.md)).

# %%
with torch.no_grad():
    before = model(picture)
    print(crosshead.swap_attention(model, "overlap", overlap="fraction:0.5"))
    change = (model(picture) - before).abs().max() / before.abs().max()
print(f"largest change, over the largest output: {change:.1e}")
assert change < 1e-4
