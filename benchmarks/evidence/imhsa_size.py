"""iMHSA beside other attention in the same time, by how finely pictures are cut: 49 and 196 tokens.

The ViT of ``thin_heads`` with 4 heads of 8 and patches of 4 or 2 pixels. Attention is plain; through 4 x 4 landmarks,
with heads apart or exchanging; or one of two peers of linear cost: timm's cross-covariance attention (XCA, arXiv
2106.09681), and agent attention (arXiv 2312.08874) with 16 agents, as the package agent-attention-pytorch has it:
learned ones, no gate, no talking heads. All train for the same time, which is that of ``exchange`` for
STEPS steps.
"""

from agent_attention_pytorch import AgentSelfAttention
from timm.models.xcit import XCA
from torch import Tensor, nn

from crosshead import swap_attention
from crosshead.train.loop.model import build_paired, count_parameters

from . import thin_heads
from .imhsa_pictures import KINDS as INTERACTIONS
from .ledger import Job, Part

HEADS, LANDMARKS = 4, 4
STEPS = {4: 700, 2: 300}  # by patch; a step at 196 tokens takes 2.4 times as long as one at 49
KINDS = ("plain", "apart", "exchange", "xca", "agent")
SEEDS = range(14100, 14108)
# Time of a step over that of ``exchange``, by patch: timed in turn before any of the runs.
COST = {
    4: {"plain": 0.75, "apart": 0.94, "exchange": 1.0, "xca": 0.69, "agent": 0.81},
    2: {"plain": 1.53, "apart": 0.93, "exchange": 1.0, "xca": 0.68, "agent": 0.80},
}


def started(kind: str, patch: int) -> nn.Module:
    model = thin_heads.plain_vit(HEADS, patch=patch)
    if kind in INTERACTIONS:
        swap_attention(model, "imhsa", landmarks=LANDMARKS, interaction=INTERACTIONS[kind], init="paper")
    elif kind != "plain":
        for block in model.blocks:
            block.attn = Peer(kind)
    thin_heads.start(model)
    return model


class Peer(nn.Module):
    """Another's attention where timm's block calls its own: tokens (B, N, C) to tokens, no masks."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        width = thin_heads.WIDTH
        if kind == "xca":
            self.inner = XCA(width, HEADS, qkv_bias=True)
        else:
            self.inner = AgentSelfAttention(
                width, num_agent_tokens=LANDMARKS**2, dim_head=width // HEADS, heads=HEADS, talking_heads=False,
                gate=False,
            )  # fmt: skip

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        return self.inner(x)


def run(cell: str, seed: int) -> dict[str, object]:
    kind, size = cell.split("/")
    patch = int(size)
    model = build_paired(lambda: started(kind, patch), seed)
    steps = round(STEPS[patch] / COST[patch][kind])
    losses = thin_heads.train(model, seed, steps, warm_up=100)
    return {
        "accuracy": thin_heads.accuracy(model),
        "losses": losses,
        "steps": steps,
        "parameters": count_parameters(model),
    }


PART = Part(
    "imhsa_size",
    "Fashion-MNIST, test accuracy of a ViT of width 32 after equal time, by kind of attention/patch in pixels",
    {
        "heads": HEADS, "landmarks": LANDMARKS, "steps": STEPS, "cost": COST, "batch": thin_heads.BATCH,
        "lr": thin_heads.LR,
    },
    [
        Job(f"{kind}/{patch}", seed)
        for seeds in (SEEDS[:4], SEEDS[4:])
        for seed in seeds
        for patch in STEPS
        for kind in KINDS
    ],
    run,
)  # fmt: skip
