"""Any model converted on pictures without labels: it is held to what it said of them itself."""

import copy
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn

from crosshead.conversion.costs import forward_costs
from crosshead.conversion.distilling import check_steps, convert_attention
from crosshead.conversion.objectives import has_classes, pooled
from crosshead.conversion.of_run import MATCHED
from crosshead.conversion.outcome import BEFORE, CONVERTED, SWAPPED, Conversion, Row, conditions
from crosshead.data.decode.decoding import Decoding
from crosshead.data.decode.images import decode_image
from crosshead.data.random import permutation
from crosshead.swap import swap_attention

HELD_OUT = 10  # one picture in so many is judged, and not learned from


def convert_on_pictures(
    model: nn.Module,
    files: Sequence[Path],
    kind: str = "imhsa",
    *,
    steps: int,
    batch_size: int = 8,
    match: bool = False,
    lr: float = 1e-3,
    attention_only: bool = False,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Conversion:
    """Converts a model of timm's on pictures that need no labels; a tenth of them judges how alike the answers are.

    The measure is "agreement", the share of pictures of which both say the same class, or "cosine", the mean over
    pictures of the cosine of what both have of one, where the model has no classes. Pictures are prepared as timm does
    for the model, in training with its random crops, colours and flips.

    Args:
        files: of pictures, ten at least.
        others: as of ``convert_attention``; with ``match`` a quarter of the steps matches layers first.

    Raises:
        ValueError: too few pictures, one that can't be read, or what ``convert_attention`` refuses.
    """
    if len(files) < HELD_OUT:
        raise ValueError(
            f"expected at least {HELD_OUT} pictures, one of which judges the others, got {len(files)}"
        )
    match_steps = steps // MATCHED if match else 0
    check_steps(steps, match_steps)
    swapped = copy.deepcopy(model)
    swap_attention(swapped, kind, init="paper", **options)
    pictures = _Pictures(model, sorted(files), batch_size, seed)
    rows = [Row(BEFORE, 0, 0.0, 1.0), Row(SWAPPED, 0, 0.0, pictures.alike(model, swapped))]
    tell(f"{rows[-1].what}: {rows[-1].value:.2%}")
    begun = time.process_time()
    found = convert_attention(
        model, pictures, kind, steps=steps, match_steps=match_steps, labels=False, lr=lr,
        attention_only=attention_only, **options,
    )  # fmt: skip
    spent = time.process_time() - begun
    rows.append(Row(CONVERTED, steps, spent, pictures.alike(model, found.model), lr=lr))
    size, channels = pictures.size, pictures.channels
    costs = forward_costs({BEFORE: model, kind: found.model}, size, channels)
    measure = "agreement" if has_classes(model) else "cosine"
    images = f"{len(pictures.held)} held-out pictures"
    return Conversion(
        found.model, kind, dict(options), measure, images, False, match_steps, seed, rows, costs, conditions(model)
    )  # fmt: skip


class _Pictures:
    """Batches of pictures to learn from, without end, and those that judge."""

    def __init__(self, model: nn.Module, files: Sequence[Path], batch_size: int, seed: int) -> None:
        config = resolve_model_data_config(model)
        size = getattr(getattr(model, "patch_embed", None), "img_size", None) or config["input_size"][1:]
        self.channels, self.size = config["input_size"][0], (int(size[0]), int(size[1]))
        config |= {"input_size": (self.channels, *self.size)}
        self.device = next(model.parameters()).device
        self.learned = create_transform(**config, is_training=True)
        self.judged = create_transform(**config, is_training=False)
        self.held = files[::HELD_OUT]
        self.files = [file for number, file in enumerate(files) if number % HELD_OUT]
        self.batch_size, self.seed = min(batch_size, len(self.files)), seed

    def __iter__(self) -> Iterator[Tensor]:
        torch.manual_seed(self.seed)
        random.seed(self.seed)  # of timm's transforms
        for epoch in count():
            order = permutation("conversion", self.seed, epoch, len(self.files))
            for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
                chosen = order[start : start + self.batch_size].tolist()
                yield torch.stack([self._read(self.files[i], self.learned) for i in chosen])

    def _read(self, file: Path, transform: Any) -> Tensor:
        return transform(
            decode_image(file, decoding=Decoding()).convert("RGB" if self.channels == 3 else "L")
        )

    @torch.inference_mode()
    def alike(self, model: nn.Module, other: nn.Module) -> float:
        """Of the held-out pictures: the share with the same class, or the mean cosine."""
        found = []
        for file in self.held:
            image = self._read(file, self.judged)[None].to(self.device)
            a, b = (self._answer(each.eval(), image) for each in (model, other))
            same = a.argmax(-1) == b.argmax(-1) if has_classes(model) else F.cosine_similarity(a, b, -1)
            found.append(same.float().item())
        return statistics.fmean(found)

    @staticmethod
    def _answer(model: nn.Module, image: Tensor) -> Tensor:
        return model(image) if has_classes(model) else pooled(model, model.forward_features(image))  # type: ignore[operator]
