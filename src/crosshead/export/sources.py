"""What is exported: the model of a run, of a folder of ``crosshead.save``, or of timm's registry, and what is known of
its pictures."""

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
from numpy.typing import NDArray
from torch import nn

from crosshead.data.base import ImageSet, Splits
from crosshead.data.batching.dense_batches import MULTIPLE
from crosshead.data.decode.images import BrokenImage
from crosshead.data.transforms.pipeline import image_size
from crosshead.export.about import About
from crosshead.export.graphs import step_of
from crosshead.export.prepare import channels_of
from crosshead.models.detectors import FCOS, RCNN, RetinaNet
from crosshead.models.saved import CONFIG, load_saved
from crosshead.tasks.detect.matching import score_thresholds
from crosshead.train.inference import LoadedRun, load_run
from crosshead.train.run_folder.folder import RECIPE_FILE

_PICTURES = 8  # to compare on


@dataclass(frozen=True)
class Source:
    """A model, what its file is to tell, and the run it is of, if it is one's."""

    model: nn.Module
    about: About
    trained: LoadedRun | None = None


def of_run(folder: Path, checkpoint: str, size: tuple[int, int] | None = None) -> Source:
    """Of a run's checkpoint; ``size`` (height, width) in place of the recipe's, of pictures that are taken whole."""
    trained = load_run(folder, checkpoint=checkpoint, device="cpu")
    task = trained.recipe.task
    if task.temperature != 1 or task.threshold is not None or task.classes is not None:
        raise ValueError(
            "task.temperature, task.threshold and task.classes are no part of an exported file; set them to 1, null "
            "and null in the run's recipe, and apply them to what the file gives"
        )
    if task.tta or task.suppression != "nms":
        raise ValueError(
            "task.tta and task.suppression are no part of an exported file; set them to [] and nms in the run's recipe"
        )
    about = _about_run(trained)
    if size is not None and about.crop == "center" and size != about.size:
        raise ValueError(
            f"--size: the run's pictures are cut to {about.size[0]} x {about.size[1]}, and its file takes the same; "
            "leave --size out"
        )
    size = size or about.size
    if about.answers == "objects":
        size = (size[0] + -size[0] % about.multiple, size[1] + -size[1] % about.multiple)
    return Source(trained.model, replace(about, size=size), trained)


def of_model(word: str, size: tuple[int, int] | None = None) -> Source:
    """Of a folder that ``crosshead.save`` wrote, or a name in timm's registry, with its first weights if it has any."""
    if (Path(word) / CONFIG).is_file():
        model = load_saved(word)
    elif timm.is_model(word):
        model = timm.create_model(word, pretrained=timm.models.is_model_pretrained(word))
    else:
        raise ValueError(
            f"{word} is no folder of a run ({RECIPE_FILE}) or of crosshead.save ({CONFIG}), and no model of timm's "
            "registry (crosshead models lists those that are this library's)"
        )
    cfg: dict[str, Any] = dict(getattr(model, "pretrained_cfg", None) or {})
    channels, height, width = cfg["input_size"]
    sides = getattr(getattr(model, "patch_embed", None), "img_size", None) or (height, width)
    chosen = size or (int(sides[0]), int(sides[1]))
    about = About(
        task="classify",
        answers="classes",
        model=str(cfg.get("architecture") or word),
        classes=tuple(map(str, cfg.get("label_names") or range(getattr(model, "num_classes", 0)))),
        channels=channels,
        mean=tuple(map(float, cfg["mean"])),
        std=tuple(map(float, cfg["std"])),
        size=chosen,
        resize=math.floor(min(chosen) / float(cfg.get("crop_pct") or 1)),
        interpolation=str(cfg.get("interpolation") or "bicubic"),
    )
    return Source(model.eval(), about)


def _about_run(trained: LoadedRun) -> About:
    recipe, info, data, task = trained.recipe, trained.info, trained.recipe.data, trained.recipe.task
    whole, objects = trained.task.whole_pictures, trained.task.targets == "objects"
    assert trained.run is not None
    multiple = step_of(trained.model) if whole else 1
    return About(
        task=task.name,
        answers=trained.task.answers,
        model=recipe.model.name,
        classes=tuple(info.class_names),
        channels=info.channels,
        mean=tuple(info.mean),
        std=tuple(info.std),
        size=image_size(data),
        resize=data.eval_resize,
        longest=data.longest if objects else None,
        crop="none" if whole else "center",
        interpolation=data.interpolation,
        max_megapixels=data.max_megapixels,
        white_level=data.white_level,
        value_range=data.value_range,
        exif=data.exif,
        multiple=math.lcm(multiple, MULTIPLE) if objects else multiple,
        recipe=hashlib.sha256((trained.run / RECIPE_FILE).read_bytes()).hexdigest(),
        step=trained.step,
        scale=info.scale,
        stride=getattr(trained.model, "stride", None),
        window=task.window if trained.task.takes_windows else None,
        window_scale=task.window_scale,
        detector=_detector(trained),
    )


def _detector(trained: LoadedRun) -> dict[str, Any] | None:
    if not isinstance(trained.model, RetinaNet | FCOS | RCNN):
        return None
    net: Any = trained.model.net
    shown = trained.recipe.task.score_threshold
    told = {
        "nms_threshold": trained.model.nms_threshold,
        "max_detections": trained.model.max_detections,
        "shown_threshold": shown
        if isinstance(shown, float)
        else score_thresholds(shown, trained.info.class_names),
        "class_ids": None if trained.info.class_ids is None else list(trained.info.class_ids),
    }
    if isinstance(trained.model, RCNN):  # whose graph decides itself what is kept
        return told
    return told | {
        "strides": list(trained.model.pyramid.strides),
        "per_location": net.anchor_generator.per_location,
        "candidates": net.topk_candidates,
        "score_threshold": net.score_thresh,
    }


def pictures_of(images: ImageSet, about: About) -> list[NDArray[np.uint8]]:
    """A few pictures (C, h, w) from all over a split; those that can't be read are passed over."""
    found = []
    for i in np.linspace(0, len(images) - 1, min(_PICTURES, len(images))).astype(int).tolist():
        try:
            picture = images.load(i)
        except BrokenImage:
            continue
        found.append(channels_of(picture, about.channels))
    return found


def validation_of(source: Source) -> tuple[Splits | None, str | None]:
    """The run's data, or why it can't be opened."""
    if source.trained is None:
        return None, "there is no run, whose pictures they could be"
    try:
        return source.trained.open_data(), None
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return None, f"the run's data can't be opened: {(str(error).splitlines() or [''])[0]}"
