"""Detection and instance segmentation: predictions are objects, of each picture's own size."""

from itertools import groupby
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from crosshead.data.base import Batch, DatasetInfo, ImageSet
from crosshead.data.batching.dense_batches import EvaluationObjects, TrainingObjects, padded
from crosshead.data.datasets.contents import Contents
from crosshead.data.datasets.dense import ObjectDataset
from crosshead.data.transforms.objects import whole_object_picture
from crosshead.data.transforms.pipeline import image_size
from crosshead.models.detectors import Detector, build_detector
from crosshead.models.pyramid import Maps
from crosshead.models.weighted_classes import weigh_classes
from crosshead.recipe.schema import Recipe
from crosshead.tasks.augmented import found_in_views
from crosshead.tasks.dense_task import FOR_LABELS, DenseTask, refuse_augmentation
from crosshead.tasks.detect.coco_evaluation import (
    DetectEvaluation,
    DetectionOutputs,
    MaskOutputs,
    metric_name,
    own_metrics,
)
from crosshead.tasks.detect.matching import check_names, score_thresholds, words
from crosshead.tasks.detect.merging import merged
from crosshead.tasks.detect.results import answer, in_own_pixels
from crosshead.tasks.drawing import draw_objects
from crosshead.tasks.metrics import chosen_metrics
from crosshead.tasks.protocol import NOT_FINITE, Answers, Step
from crosshead.tasks.windows import detect

_LOSSES = {
    "retinanet": ("classes", "boxes"),
    "fcos": ("classes", "boxes", "centerness"),
    "faster_rcnn": ("objectness", "proposals", "classes", "boxes"),
    "mask_rcnn": ("objectness", "proposals", "classes", "boxes", "masks"),
}
_MOST = 100  # objects that an answer holds unless another number is asked for


class DetectTask(DenseTask):
    """The detector's own losses to train with, COCO's average precision to judge by.

    The losses are means over the pictures or samples of a batch, as the papers' are; a process's share weighs by its
    pictures.
    """

    targets: ClassVar[Literal["label", "map", "objects"]] = "objects"
    answers: ClassVar[Answers] = "objects"
    counts = ()
    training, evaluating, whole = TrainingObjects, EvaluationObjects, whole_object_picture

    def __init__(self, recipe: Recipe, info: DatasetInfo) -> None:
        if recipe.model.detector is None:
            raise ValueError(
                "model.detector is not set, and task.name=detect needs one: model.detector.name=retinanet, fcos, "
                "faster_rcnn or mask_rcnn"
            )
        refuse_augmentation(
            recipe,
            (*FOR_LABELS, "scale_range"),
            "not for pictures with boxes; set them to 0 or null, as shared/detect does",
        )
        super().__init__(recipe, info, recipe.model.detector)
        self.weights = self.weights_by_name("objects")
        self.masked = self.settings.name == "mask_rcnn"
        if self.masked and recipe.task.suppression == "weighted":
            raise ValueError(
                "task.suppression is weighted, which moves boxes, and mask_rcnn's masks lie in theirs; expected nms or "
                "soft_nms"
            )
        self.kinds = ("mask", "box") if self.masked else ("box",)
        self.losses = _LOSSES[self.settings.name]
        self.shown = tuple(metric_name(kind, number) for kind in self.kinds for number in ("AP", "AP50"))
        self.evaluates = MaskOutputs if self.masked else DetectionOutputs
        own = own_metrics(self.kinds)
        self.primary, self.metrics = chosen_metrics(recipe.task, own, self.evaluates)
        self.shown += tuple(name for name in self.metrics if name not in own)

    def build_head(self, maps: Maps, classes: int) -> nn.Module:
        options = {"max_detections": max(_MOST, self.recipe.task.max_detections)} | self.settings.options
        detector = build_detector(self.settings.name, maps, classes, **options)
        if self.weights is not None:
            weigh_classes(detector, self.weights)
        if self.recipe.task.suppression != "nms":
            detector.leave_overlaps()
        return detector

    def check_images(self, images: ImageSet) -> ObjectDataset:
        named = f"the pictures of data.name={self.recipe.data.name} have no"
        if not isinstance(images, ObjectDataset):
            raise ValueError(
                f"{named} boxes, and task.name=detect learns from boxes: take coco, coco-folder, scenes or another set "
                "with objects"
            )
        if self.masked and not images.masked:
            raise ValueError(
                f"{named} masks, and model.detector.name=mask_rcnn learns from masks: take faster_rcnn or retinanet"
            )
        if self.masked and images.mask_fault:
            raise ValueError(images.mask_fault)
        if not images.generated:
            _check_size(self.recipe)
        return images.boxes_alone() if images.partly and not self.masked else images

    def empty_batch(self) -> Batch:
        height, width = image_size(self.recipe.data)
        target = {
            "size": torch.tensor([height, width]),
            "boxes": torch.zeros(0, 4),
            "labels": torch.zeros(0, dtype=torch.int64),
        }
        if self.masked:
            target["masks"] = torch.zeros(0, height, width, dtype=torch.uint8)
        images = padded([torch.zeros(self.info.channels, height, width)], self.info.channels)
        return Batch(images, [target], torch.zeros(0, dtype=torch.int64))

    def loss_divisors(self, batch: Batch) -> None:
        return None

    def step(self, network: nn.Module, batch: Batch) -> Step:
        losses = network(batch.images, _sizes(batch), batch.targets)
        return Step({name: losses[name] * len(batch) for name in self.losses})

    def predict(self, model: nn.Module, batch: Batch) -> list[dict[str, Tensor]]:
        """What is found in each picture, in the pixels that the model sees; see ``models.detectors.Detector``."""
        return self._find(model, batch.images, _sizes(batch))

    def _find(self, model: Any, images: Tensor, sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """In each picture, of whatever views and suppression the recipe says."""
        task = self.recipe.task

        def one_view(seen: Tensor, sides: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
            found: list[dict[str, Tensor]] = detect(model, seen, sides, task.window)
            return found

        if not task.tta and task.suppression == "nms":
            return one_view(images, sizes)
        views = found_in_views(one_view, images, sizes, task.tta)
        most = model.max_detections
        return [merged(parts, task.suppression, model.nms_threshold, most) for parts in views]

    def undefined(self, held: Contents) -> str | None:
        lacking = self.primary.lacks(self.evaluates, held)
        return lacking if held.counts.any() else lacking or "no object (crowds are not judged)"

    def limits(self, held: Contents) -> list[str]:
        if held.most <= (limit := self.recipe.task.max_detections):
            return []
        return [
            f"pictures have up to {held.most:,} objects, and the best {limit:,} that are found of a class in each are "
            f"judged: set task.max_detections={held.most}"
        ]

    def finite(self, predictions: list[dict[str, Tensor]]) -> list[bool]:
        return [bool(found["scores"].isfinite().all()) for found in predictions]

    def evaluation(self, *, predictions: bool = False) -> DetectEvaluation:
        return DetectEvaluation(
            self.info.class_names, self.kinds, self.recipe.task.max_detections, self.metrics, predictions
        )

    def example(self, model: nn.Module) -> tuple[nn.Module, tuple[Any, ...]]:
        """Backbone and pyramid: how much the heads compute depends on what they find."""
        assert isinstance(model, Detector)
        return model.pyramid, (self.blank_image(),)

    def predictions_of(
        self, model: nn.Module, prepared: list[Any], *, top: int | None = None
    ) -> list[dict[str, Any]]:
        """The objects of each picture that score ``task.score_threshold`` or more, the best first, and of them the
        ``top`` (100)."""
        device, lowest = next(model.parameters()).device, self._lowest_scores()
        answers: list[dict[str, Any]] = []
        for _, alike in groupby(prepared, key=lambda each: each[0].shape):
            images, owns = zip(*alike, strict=True)
            sizes = [tuple(image.shape[-2:]) for image in images]
            with torch.inference_mode():
                seen = padded(images, self.info.channels).to(device)
                found = self._find(model, seen, sizes)
            for each, size, own in zip(found, sizes, owns, strict=True):
                likely = each["scores"] >= lowest.to(device)[each["labels"]]
                best = {
                    name: values[likely][: _MOST if top is None else top] for name, values in each.items()
                }
                said = answer(in_own_pixels(best, size, own), own, self.info.class_names, self.info.class_ids)
                answers.append(said if each["scores"].isfinite().all() else said | {"fault": NOT_FINITE})
        return answers

    def _lowest_scores(self) -> Tensor:
        """(classes,); beyond 1 for classes that are not to be told."""
        task, names = self.recipe.task, self.info.class_names
        lowest = score_thresholds(task.score_threshold, names)
        if task.classes is not None:
            check_names(task.classes, names, "task.classes")
            lowest = [low if name in task.classes else 2.0 for low, name in zip(lowest, names, strict=True)]
        return torch.tensor(lowest)

    def format_lines(self, answer: dict[str, Any]) -> list[str]:
        found = [
            f"{each['score']:7.2%}  {each['class']}  at {', '.join(f'{side:.0f}' for side in each['bbox'])}"
            for each in answer["objects"]
        ]
        return found or [f"nothing that scores {words(self.recipe.task.score_threshold)} or more"]

    def draw(self, picture: Image.Image, answer: dict[str, Any]) -> dict[str, Image.Image]:
        return {"drawn": draw_objects(picture, answer)}


def _check_size(recipe: Recipe) -> None:
    """ValueError where ``data.image_size`` is said, and other keys decide how large pictures are."""
    data, augment = recipe.data, recipe.augment
    if "image_size" not in data.model_fields_set or augment.jitter_range is not None:
        return
    if data.eval_resize is None and "eval_resize" in data.model_fields_set:
        return  # pictures as they are, by the recipe's own word; image_size is the example's that is counted
    if data.eval_resize != min(image_size(data)):
        given = "null" if data.eval_resize is None else data.eval_resize
        raise ValueError(
            f"data.image_size is {data.image_size}, and a detector's pictures go by other keys: data.eval_resize, the "
            f"shorter side, is {given}, and data.longest limits the longer one; set data.eval_resize="
            f"{min(image_size(data))} (or null: pictures as they are), or augment.jitter_range to cut to image_size"
        )


def _sizes(batch: Batch) -> list[tuple[int, int]]:
    """(height, width) of each picture inside the padding."""
    return [tuple(target["size"].tolist()) for target in batch.targets]
