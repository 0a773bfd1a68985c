"""From one picture to a normalised tensor: torchvision's transforms v2 and timm's RandAugment, put in line.

Everything here also works on a batch of uint8 tensors of one size where it says "pictures".
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import RandAugment, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from crosshead.data.base import DatasetInfo
from crosshead.data.decode.decoding import Bands
from crosshead.data.decode.images import BrokenImage
from crosshead.recipe.schema import AugmentConfig, DataConfig, TaskConfig

_RAND_AUGMENT = re.compile(r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?|-t(weights|3aw?))*")

Transform = Callable[[Image.Image], Tensor]


def training_transform(data: DataConfig, augment: AugmentConfig, info: DatasetInfo) -> Transform:
    """Resized crop, flip, affine, RandAugment or colour jitter, normalise, erase; (C, H, W) float32.

    The random ones draw from the global generators of Python, NumPy and PyTorch. As in timm's recipes, colour
    jitter serves only where RandAugment, which has colour operations of its own, is off.
    """
    # In colour up to the end, for a grey picture too: RandAugment's fill colours are triples.
    steps: list[Any] = [_unpacked if info.channels not in (1, 3) else _to_rgb]
    if augment.crop_scale is None:
        steps.append(partial(fit, data=data, eval_resize=None))
    else:
        steps += [partial(grow, data=data), _resized_crop(data, augment, augment.crop_scale)]
    if augment.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(augment.horizontal_flip))
    if has_affine(augment):
        steps.append(_affine(data, augment))
    if augment.randaugment is not None:
        steps.append(_rand_augment(data, augment.randaugment, info))
    elif augment.color_jitter:
        steps.append(v2.ColorJitter(*[augment.color_jitter] * 3))
    steps.append(partial(normalise, info=info))
    if augment.erasing:
        steps.append(erasing(augment, augment.erasing))
    return v2.Compose(steps)


def evaluation_transform(data: DataConfig, info: DatasetInfo) -> Transform:
    """Resize, centre crop, normalise: (C, H, W) float32."""
    fitted = partial(fit, data=data, eval_resize=data.eval_resize)
    return v2.Compose([_unpacked, fitted, partial(normalise, info=info)])


def channels_of(picture: Image.Image, channels: int) -> Tensor:
    """The picture's pixels (C, H, W) uint8, brought to ``channels`` where these are 1 or 3."""
    if isinstance(picture, Bands):
        return torch.from_numpy(picture.bands).permute(2, 0, 1).contiguous()
    # Pillow keeps the channels of a pixel together; on that order arithmetic takes twice as long.
    return F.pil_to_tensor(picture.convert("L" if channels == 1 else "RGB")).contiguous()


def colours_of(picture: Image.Image, info: DatasetInfo) -> Tensor:
    """As ``channels_of``, a grey picture in colour too, in which augmentation works."""
    return channels_of(picture, 3 if info.channels == 1 else info.channels)


def check_channels(augment: AugmentConfig, info: DatasetInfo) -> None:
    """ValueError where augmentation that changes colours is asked for, and pictures have other channels than these."""
    if info.channels in (1, 3):
        return
    jitter = augment.color_jitter if augment.randaugment is None else None
    said = {"randaugment": augment.randaugment, "color_jitter": jitter, "photometric": augment.photometric}
    if wrong := [f"augment.{key}" for key, value in said.items() if value]:
        raise ValueError(
            f"{' and '.join(wrong)} changes colours, and pictures of {info.channels} channels (data.channels) have "
            "none to speak of: set augment.randaugment=null augment.color_jitter=null augment.photometric=0"
        )


def image_size(data: DataConfig) -> tuple[int, int]:
    """(height, width) of what the model gets."""
    size = data.image_size
    if size is None:
        raise ValueError("data.image_size is null, and no first weights say which; set it, 224 for example")
    return (size, size) if isinstance(size, int) else size


def fit(pictures: Any, data: DataConfig, eval_resize: int | None) -> Any:
    """Resized to cover ``image_size`` (shorter side to ``eval_resize`` if set), cropped at the centre."""
    height, width = image_size(data)
    if eval_resize is not None and eval_resize < max(height, width):
        raise ValueError(
            f"data.eval_resize is {eval_resize}, below data.image_size {height} x {width}: raise it"
        )
    cover = (height, width) if eval_resize is None else (eval_resize, eval_resize)
    return F.center_crop(_resize_to_cover(pictures, cover, data), [height, width])


def grow(pictures: Any, data: DataConfig) -> Any:
    """Pictures smaller than ``image_size`` resized to cover it, as the MOHSA paper does before it crops."""
    height, width = F.get_size(pictures)
    wanted = image_size(data)
    return _resize_to_cover(pictures, wanted, data) if height < wanted[0] and width < wanted[1] else pictures


def _resize_to_cover(pictures: Any, cover: tuple[int, int], data: DataConfig) -> Any:
    height, width = F.get_size(pictures)
    scale = max(cover[0] / height, cover[1] / width)
    size = [max(cover[0], round(height * scale)), max(cover[1], round(width * scale))]
    if size[0] * size[1] > data.max_megapixels * 1e6:
        reason = (
            f"{width} x {height} pixels would be resized to {size[1]} x {size[0]}, above data.max_megapixels"
        )
        raise BrokenImage("picture", reason)
    if size == [height, width]:
        return pictures
    return F.resize(pictures, size, InterpolationMode(data.interpolation), antialias=True)


def normalise(pictures: Any, info: DatasetInfo) -> Tensor:
    """Float32 (B, C, H, W), or (C, H, W) of one picture, with the channels and statistics of ``info``."""
    if isinstance(pictures, Image.Image):
        pictures = channels_of(pictures, info.channels)
    elif pictures.shape[-3] != info.channels:
        pictures = F.rgb_to_grayscale(pictures, num_output_channels=info.channels)
    own = pictures.dtype == torch.uint8  # then what is made of it is no one else's
    scaled = pictures.float().div_(255) if own else pictures
    return F.normalize(scaled, list(info.mean), list(info.std), inplace=own)


def window_factor(own: tuple[int, int], task: TaskConfig | None) -> float | None:
    """By how much a picture of (height, width) ``own`` is resized before it is cut into windows: never down to what
    whole pictures are resized to, in which small things are lost. None for one that a window holds whole."""
    if task is None or task.window is None or max(own) * task.window_scale <= task.window:
        return None
    return task.window_scale


def has_affine(augment: AugmentConfig) -> bool:
    return bool(augment.affine_degrees or augment.affine_translate or augment.affine_scale)


def erasing(augment: AugmentConfig, probability: float) -> RandomErasing:
    """timm's random erasing of normalised pictures on the CPU; draws from the global generators."""
    return RandomErasing(probability, mode=augment.erasing_mode, device="cpu")


def _unpacked(picture: Image.Image) -> Image.Image | Tensor:
    """All channels of a picture for which Pillow has no mode, as a tensor."""
    return channels_of(picture, 0) if isinstance(picture, Bands) else picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    return picture.convert("RGB")


def _resized_crop(data: DataConfig, augment: AugmentConfig, scale: tuple[float, float]) -> v2.Transform:
    interpolation = InterpolationMode(data.interpolation)
    return v2.RandomResizedCrop(image_size(data), scale, augment.crop_ratio, interpolation, antialias=True)


def _affine(data: DataConfig, augment: AugmentConfig) -> v2.Transform:
    return v2.RandomAffine(
        augment.affine_degrees,
        translate=(augment.affine_translate, augment.affine_translate),
        scale=augment.affine_scale,
        interpolation=InterpolationMode(data.interpolation),
    )


def _rand_augment(data: DataConfig, spec: str, info: DatasetInfo) -> RandAugment:
    mean = info.mean if len(info.mean) == 3 else info.mean * 3
    options = {
        "translate_const": int(min(image_size(data)) * 0.45),
        "img_mean": tuple(min(255, round(255 * value)) for value in mean),
        "interpolation": Image.Resampling[data.interpolation.upper()],
    }
    # timm itself passes over parts that it does not know.
    if not _RAND_AUGMENT.fullmatch(spec):
        raise ValueError(
            f"augment.randaugment is {spec!r}; expected timm's form, for example rand-m9-mstd0.5-inc1"
        )
    chosen = rand_augment_transform(spec, options)
    for op in chosen.ops:
        if op.name.startswith("Posterize"):
            op.aug_fn = _posterize
    return chosen


def _posterize(picture: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm's strongest posterizing keeps no bit, which Pillow from version 13 on refuses."""
    if bits >= 8:
        return picture
    return ImageOps.posterize(picture, bits) if bits > 0 else Image.new(picture.mode, picture.size)
