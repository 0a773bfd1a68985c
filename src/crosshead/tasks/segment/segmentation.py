"""Semantic segmentation: predictions are maps of classes, of each picture's own size."""

import math
from itertools import groupby
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from crosshead.data.base import IGNORED, Batch, DatasetInfo, ImageSet
from crosshead.data.batching.dense_batches import EvaluationMaps, TrainingMaps
from crosshead.data.coco.rle import encode, to_coco
from crosshead.data.datasets.contents import Contents
from crosshead.data.datasets.dense import SegmentationDataset
from crosshead.data.transforms.maps import whole_picture
from crosshead.models.pyramid import Maps
from crosshead.models.segmenters import UPerNet, build_segmenter, full_size
from crosshead.recipe.schema import Recipe
from crosshead.tasks.augmented import mean_maps
from crosshead.tasks.dense_task import FOR_LABELS, DenseTask, refuse_augmentation
from crosshead.tasks.drawing import as_png, class_map, draw_segments
from crosshead.tasks.losses import focal_loss, known_pictures, region_loss
from crosshead.tasks.metrics import chosen_metrics
from crosshead.tasks.protocol import NOT_FINITE, Answers, Step
from crosshead.tasks.segment.pixel_evaluation import METRICS, SegmentationOutputs, SegmentEvaluation
from crosshead.tasks.windows import classes_at, windowed_logits

NOTHING = -1  # in a map that was predicted: no number came of which to take the largest


class SegmentTask(DenseTask):
    """Cross entropy of pixels to train with, mean intersection over union to judge by.

    Each loss is a sum over the pixels that have a class, weighted by ``task.class_weights``, and divided by the sum of
    these weights in all processes.
    """

    targets: ClassVar[Literal["label", "map", "objects"]] = "map"
    answers: ClassVar[Answers] = "segments"
    shown: tuple[str, ...] = ("miou", "pixel_accuracy")
    counts = ("pixel_accuracy",)
    training, evaluating, whole = TrainingMaps, EvaluationMaps, whole_picture

    def __init__(self, recipe: Recipe, info: DatasetInfo) -> None:
        if recipe.model.segmenter is None:
            raise ValueError(
                "model.segmenter is not set, and task.name=segment needs one: model.segmenter.name=semantic_fpn, "
                "upernet, linear or queries"
            )
        refuse_augmentation(
            recipe,
            (*FOR_LABELS, "mixup", "iou_crop"),
            "not for pictures with maps; set them to 0 or null, as the base shared/segment does",
        )
        super().__init__(recipe, info, recipe.model.segmenter)
        self.primary, self.metrics = chosen_metrics(recipe.task, METRICS, SegmentationOutputs)
        self.shown = (*self.shown, *(name for name in self.metrics if name not in METRICS))
        self.weights = self.weights_by_name("pixels")
        upernet = self.settings.name == "upernet"
        task = recipe.task
        self.region = None if task.region_loss is None else region_loss(task.region_loss, task.tversky_alpha)
        further = {"region": self.region is not None, "auxiliary": upernet}
        self.losses = ("cross_entropy", *(name for name, there in further.items() if there))
        self.smallest_batch = UPerNet.smallest_batch if upernet else 1
        if recipe.data.batch_size < self.smallest_batch:
            raise ValueError(
                f"data.batch_size is {recipe.data.batch_size}: {self.settings.name} normalises over the batch and "
                f"wants {self.smallest_batch} images or more"
            )

    def build_head(self, maps: Maps, classes: int) -> nn.Module:
        return build_segmenter(self.settings.name, maps, classes, **self.settings.options)

    def check_images(self, images: ImageSet) -> SegmentationDataset:
        if not isinstance(images, SegmentationDataset):
            raise ValueError(
                f"the pictures of data.name={self.recipe.data.name} have no maps, and task.name=segment learns from "
                "maps: take ade20k, voc, map-folder or another set with maps"
            )
        return images

    def empty_batch(self) -> Batch:
        images = self.blank_image(self.smallest_batch)
        targets = torch.full((len(images), *images.shape[-2:]), IGNORED, dtype=torch.uint8)
        return Batch(images, targets, torch.zeros(0, dtype=torch.int64))

    def loss_divisors(self, batch: Batch) -> dict[str, float]:
        known = batch.targets[batch.targets != IGNORED].flatten()
        if self.weights is None:
            amount = float(len(known))
        else:
            amount = float(
                torch.bincount(known, minlength=len(self.weights)).double() @ self.weights.double()
            )
        divisors = dict.fromkeys(self.losses, amount)
        return (
            divisors if self.region is None else divisors | {"region": float(known_pictures(batch.targets))}
        )

    def step(self, network: nn.Module, batch: Batch) -> Step:
        images, targets = self._enough(batch)
        outputs = network(images)
        stride: Any = getattr(network, "module", network).stride
        logits = full_size(outputs["logits"], stride, targets.shape[-2:])
        losses = {"cross_entropy": self.loss(logits, targets)}
        if self.region is not None:
            losses["region"] = self.recipe.task.region_weight * self.region(logits, targets)
        if "auxiliary" in self.losses:
            coarse = full_size(outputs["auxiliary"], stride, targets.shape[-2:])
            losses["auxiliary"] = self.recipe.task.auxiliary_weight * self.loss(coarse, targets)
        known = targets != IGNORED
        right = (logits.detach().argmax(1) == targets) & known
        share = right.sum() / known.sum().clamp(min=1)
        return Step(losses, {"pixel_accuracy": share * len(batch)})

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum of the pixels' cross entropies in float32, or of their focal losses; logits (B, classes, H, W),
        targets (B, H, W) uint8."""
        weights = None if self.weights is None else self.weights.to(logits.device)
        smoothing, gamma = self.recipe.task.label_smoothing, self.recipe.task.focal_gamma
        if gamma is not None:
            known = targets != IGNORED
            rows = logits.float().movedim(1, -1)[known]
            found = focal_loss(rows, targets[known].long(), gamma=gamma, smoothing=smoothing)
            return (found if weights is None else found * weights[targets[known].long()]).sum()
        return F.cross_entropy(
            logits.float(),
            targets.long(),
            weight=weights,
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=smoothing,
        )

    def _enough(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As many images as the model's norms want: where broken ones are missing, others stand in without a target."""
        missing = self.smallest_batch - len(batch)
        if missing <= 0:
            return batch.images, batch.targets
        nothing = torch.full_like(batch.targets[:1], IGNORED).expand(missing, -1, -1)
        more = batch.images[:1].expand(missing, -1, -1, -1)
        return torch.cat([batch.images, more]), torch.cat([batch.targets, nothing])

    def predict(self, model: nn.Module, batch: Batch) -> list[Tensor]:
        """The classes of each picture, (height, width) of its map's own size; all -1 of logits that aren't finite."""
        sizes = [tuple(target.shape) for target in batch.targets]
        pairs = list(zip(batch.images, sizes, strict=True))
        if not isinstance(model, FSDPModule):
            return self._segment(model, pairs)
        found = [self._segment(model, [pair])[0] for pair in pairs]
        most = self.recipe.data.eval_batch_size or self.recipe.data.batch_size
        for _ in range(len(pairs), most):  # every process calls a sharded model equally often
            model(torch.zeros_like(pairs[0][0])[None])
        return found

    def _segment(self, model: nn.Module, pairs: list[tuple[Tensor, tuple[int, ...]]]) -> list[Tensor]:
        """Of images (C, H, W) and the sizes that their maps are to have; those alike go through together."""
        found: list[Tensor] = []
        for (_, size), alike in groupby(pairs, key=lambda pair: (pair[0].shape, pair[1])):
            images = torch.stack([image for image, _ in alike])
            logits = self._logits(model, images)
            classes = classes_at(logits, model.stride, tuple(images.shape[-2:]), size)  # type: ignore[arg-type]
            fine = logits.isfinite().flatten(1).all(1).tolist()
            found += [
                each if known else torch.full_like(each, NOTHING)
                for each, known in zip(classes, fine, strict=True)
            ]
        return found

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """On the model's grid of images (B, C, H, W); of several views their mean probabilities."""

        def one_view(seen: Tensor) -> Tensor:
            return windowed_logits(model, seen, self.recipe.task.window)  # type: ignore[arg-type]

        if not (views := self.recipe.task.tta):
            return one_view(images)
        on: Any = model
        maps = on.maps if hasattr(on, "maps") else on.pyramid.maps
        return mean_maps(one_view, images, views, math.lcm(maps.multiple, maps.strides[-1]))

    def undefined(self, held: Contents) -> str | None:
        return (
            self.primary.lacks(SegmentationOutputs, held)
            if held.counts.any()
            else "no pixel that has a class"
        )

    def limits(self, held: Contents) -> list[str]:
        return []

    def finite(self, predictions: list[Tensor]) -> list[bool]:
        return [not bool((classes == NOTHING).any()) for classes in predictions]

    def evaluation(self, *, predictions: bool = False) -> SegmentEvaluation:
        return SegmentEvaluation(self.info.class_names, self.metrics, predictions=predictions)

    def example(self, model: nn.Module) -> tuple[nn.Module, tuple[Any, ...]]:
        return model, (self.blank_image(),)

    def predictions_of(
        self, model: nn.Module, prepared: list[Any], *, top: int | None = None
    ) -> list[dict[str, Any]]:
        """The segments of each picture, the largest first, as COCO's run lengths; every pixel has one answer, so that
        ``top`` leaves none out."""
        device = next(model.parameters()).device
        with torch.inference_mode():
            found = self._segment(model, [(image.to(device), size) for image, size in prepared])
        return [self._answer(classes.cpu().numpy()) for classes in found]

    def _answer(self, classes: np.ndarray) -> dict[str, Any]:
        numbers, counts = np.unique(classes, return_counts=True)
        segments = [
            {
                "class": self.info.class_names[number],
                "index": number,
                "pixels": count,
                "share": round(count / classes.size, 6),
                "segmentation": to_coco(encode(classes == number)),
            }
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
            if number != NOTHING
        ]
        segments.sort(key=lambda segment: -segment["pixels"])
        found = {"size": list(classes.shape), "segments": segments}
        return found | {"fault": NOT_FINITE} if (classes == NOTHING).any() else found

    def format_lines(self, answer: dict[str, Any]) -> list[str]:
        return [f"{segment['share']:7.2%}  {segment['class']}" for segment in answer["segments"]]

    def draw(self, picture: Image.Image, answer: dict[str, Any]) -> dict[str, Image.Image]:
        """The map, and the picture with the segments on it, by what their files' names end in."""
        classes = class_map(answer)
        names = dict(enumerate(self.info.class_names))
        return {"map": as_png(classes), "drawn": draw_segments(picture, classes, names)}
