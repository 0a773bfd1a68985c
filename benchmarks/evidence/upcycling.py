"""Real pretrained weights given heads that interact, and fine-tuned: is anything gained over plain fine-tuning?

The last four of DINOv2 ViT-S/14's twelve blocks learn to name kinds of stamps at 112 pixels, half of the pictures for
learning and half for judging; the first eight stay as they are, so their tokens are computed once. Interactions are
preserved at the start: all kinds begin from the same function. Their new parameters learn at the rate of all others, or
at five times that.
"""

import copy
import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from crosshead import swap_attention
from crosshead.data.random import permutation

from .conversion_real import tensors
from .ledger import Job, Part
from .real_weights import dinov2

SIZE, TRAINED, BATCH, WEIGHT_DECAY = 112, 4, 8, 0.05
STEPS = 48  # twice through the pictures
LR = 3e-4  # of 3e-5, 1e-4 and 3e-4, with plain heads, on a third of the learning pictures, kept back for that
SEEDS = range(10100, 10108)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {}, "overlap": {"overlap": "constant:32"}, "talking": {}, "knocking": {},
}  # fmt: skip
# Of plain heads in the time of STEPS overlapped ones: timed in turn, before any of the runs (ratio 1.09). Steps of
# talking (0.95) and knocking heads (0.91) took no longer.
TIME_STEPS = 53


class Tail(nn.Module):
    """What is trained: the last blocks, the norm and a new classifier, on tokens (B, 1 + N, C)."""

    def __init__(self, kind: str, classes: int) -> None:
        super().__init__()
        model = copy.deepcopy(_whole())
        if kind != "plain":
            swap_attention(model, kind, blocks=range(12 - TRAINED, 12), **OPTIONS[kind])
        self.blocks, self.norm = model.blocks[-TRAINED:], model.norm
        self.head = nn.Linear(model.embed_dim, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens)[:, 0])

    def new(self) -> set[str]:
        """Names of the parameters that plain heads don't have."""
        plain = {name for name, _ in Tail("plain", self.head.out_features).named_parameters()}
        return {name for name, _ in self.named_parameters() if name not in plain}


@functools.cache
def _whole() -> nn.Module:
    model = dinov2()
    model.set_input_size(img_size=SIZE)
    return model


@functools.cache
@torch.no_grad()
def features(training: bool) -> tuple[Tensor, Tensor, int]:
    """Tokens after the frozen blocks, of pictures and of their mirror images (2, P, 1 + N, C); kinds; their number."""
    pictures, names = tensors(training)
    kinds = sorted({*tensors(True)[1], *tensors(False)[1]})
    pictures = F.interpolate(pictures, (SIZE, SIZE), mode="bicubic", antialias=True)
    model = _whole()

    def tokens(x: Tensor) -> Tensor:
        x = model.norm_pre(model._pos_embed(model.patch_embed(x)))
        for block in model.blocks[:-TRAINED]:
            x = block(x)
        return x

    found = [torch.cat([tokens(x) for x in each.split(16)]) for each in (pictures, pictures.flip(-1))]
    return torch.stack(found), torch.tensor([kinds.index(name) for name in names]), len(kinds)


def train(model: Tail, seed: int, steps: int, lr: float, times: float, chosen: Tensor) -> None:
    """AdamW with warm-up and cosine over the pictures that ``chosen`` numbers, mirrored by chance."""
    held, kinds, _ = features(True)
    new = model.new()
    fresh, rest = nn.ParameterDict(), nn.ParameterDict()
    for name, parameter in model.named_parameters():
        (fresh if name in new else rest)[name.replace(".", "/")] = parameter
    groups = [
        {**group, "times": factor}
        for each, factor in ((rest, 1.0), (fresh, times))
        for group in param_groups_weight_decay(each, WEIGHT_DECAY)
        if group["params"]
    ]
    optimizer = torch.optim.AdamW(groups, lr)
    generator = torch.Generator().manual_seed(seed)
    rounds = -(-steps * BATCH // len(chosen))
    order = [i for each in range(rounds) for i in permutation("upcycling", seed, each, len(chosen))]
    for step in range(steps):
        rate = lr * min(1.0, (step + 1) / (0.1 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["times"]
        batch = chosen[order[step * BATCH : (step + 1) * BATCH]]
        mirrored = torch.randint(2, (len(batch),), generator=generator)
        loss = F.cross_entropy(model(held[mirrored, batch]), kinds[batch])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@torch.inference_mode()
def judged(model: Tail, tokens: Tensor, kinds: Tensor) -> dict[str, float]:
    logits = torch.cat([model.eval()(x) for x in tokens.split(16)])
    return {
        "accuracy": (logits.argmax(-1) == kinds).float().mean().item(),
        "loss": F.cross_entropy(logits, kinds).item(),
    }


def run(cell: str, seed: int) -> dict[str, Any]:
    kind, times = cell.split(" x ") if " x " in cell else (cell, "1")
    steps = STEPS
    if kind == "plain (time of overlap)":
        steps, kind = TIME_STEPS, "plain"
    held, kinds, classes = features(True)
    model = Tail(kind, classes)
    train(model, seed, steps, LR, float(times), torch.arange(len(kinds)))
    tokens, right, _ = features(False)
    return judged(model, tokens[0], right)


def choose_rate() -> None:
    """The rate of plain heads: two thirds of the learning pictures teach, the last third judges."""
    held, kinds, classes = features(True)
    learned = torch.tensor([i for i in range(len(kinds)) if i % 3])
    others = torch.arange(0, len(kinds), 3)
    for lr in (3e-5, 1e-4, 3e-4):
        model = Tail("plain", classes)
        train(model, 10099, STEPS, lr, 1.0, learned)
        print(lr, judged(model, held[0][others], kinds[others]))


CELLS = (
    "plain", "overlap x 1", "talking x 1", "plain (time of overlap)", "overlap x 5", "talking x 5", "knocking x 1",
)  # fmt: skip
PART = Part(
    "upcycling",
    "last four blocks of DINOv2 ViT-S/14 fine-tuned to kinds of stamps; accuracy of the other half, by kind x rate",
    {
        "size": SIZE, "blocks": TRAINED, "steps": STEPS, "batch": BATCH, "lr": LR, "weight_decay": WEIGHT_DECAY,
        "overlap": 32,
    },
    [Job(cell, seed) for seed in SEEDS for cell in CELLS],
    run,
)  # fmt: skip
