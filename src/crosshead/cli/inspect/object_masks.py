"""Where the objects of a data set's images are, for those sets that mark them."""

from typing import TYPE_CHECKING, Any

from crosshead.cli.inspect.inspected import InspectedRun

if TYPE_CHECKING:
    from torch import Tensor

# Sets whose pictures are bright objects on a dark ground: an object is where it is bright.
_BRIGHT_OBJECTS = ("digits", "fashion-mnist")
_NO_CLASS = 255  # of a map's pixel
_BRIGHT = 0.2  # of the range from black to white


def check_marked(trained: Any, images: Any) -> None:
    """Raises ValueError for a run whose data set does not say where its objects are."""
    task, name = trained.recipe.task.name, trained.recipe.data.name
    marked = {
        "segment": trained.info.class_names[0] == "background",
        "detect": getattr(images, "masked", False),
    }.get(task, name in _BRIGHT_OBJECTS)
    if not marked:
        raise ValueError(
            f"--masks: {name} does not mark its objects; {', '.join(_BRIGHT_OBJECTS)} do, maps with a class "
            "'background', and objects with masks"
        )


def object_masks(inspected: InspectedRun, images: "Tensor", batch: Any) -> "Tensor":
    """(B, H, W) True on objects of the images (B, C, H, W) of a batch; what is hidden, or no class, is none."""
    import torch

    assert inspected.trained is not None
    task = inspected.trained.recipe.task.name
    if task == "segment":
        masks = [(classes > 0) & (classes != _NO_CLASS) for classes in batch.targets]
        sizes = [tuple(image.shape[-2:]) for image in batch.images]
    elif task == "detect":
        masks = [_of_objects(target["objects"]) for target in batch.targets]
        sizes = [tuple(target["size"].tolist()) for target in batch.targets]
    else:
        mean, std = (torch.tensor(list(each)).view(-1, 1, 1) for each in (inspected.mean, inspected.std))
        return (images.cpu() * std + mean).mean(1) > _BRIGHT
    marked = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
    for whole, mask, (height, width) in zip(marked, masks, sizes, strict=True):
        resized = torch.nn.functional.interpolate(mask[None, None].float(), size=(height, width))
        whole[:height, :width] = resized[0, 0] > 0
    return marked


def _of_objects(objects: Any) -> "Tensor":
    import torch

    return torch.from_numpy(objects.whole_masks()[~objects.crowd]).any(0)
