"""The model that a command looks into: a run's, a saved one, or any by name with a file of weights."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.cli.arguments.options import add_checkpoint, add_device, find_checkpoint

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

    from crosshead.cli.inspect.named_models import NamedModel
    from crosshead.data.decode.decoding import Decoding
    from crosshead.train.inference import LoadedRun


_ALL = 10_000  # more answers than a task gives


@dataclass(frozen=True)
class InspectedRun:
    """A model in evaluation mode, what to call it, how a picture becomes its input, and how that is shown again.

    Of a detector or segmenter the model is the backbone for maps, and its input has the padding that these need.
    ``trained`` is the run that it comes from, if any; ``classes`` are its classes' names, where they are known.
    """

    name: str
    model: "nn.Module"
    prepare: "Callable[[Image], Tensor]"
    mean: Sequence[float]
    std: Sequence[float]
    classes: Sequence[str] | None
    trained: "LoadedRun | None"
    decoding: "Decoding | None" = None  # a run's own
    about: str = ""  # what it is, where it is of no run

    @property
    def device(self) -> Any:
        return next(self.model.parameters()).device

    def shown(self, prepared: "Tensor") -> Any:
        """The input (C, H, W) as a person sees it: (H, W, 3) uint8."""
        import torch

        mean, std = (torch.tensor(list(each)).view(-1, 1, 1) for each in (self.mean, self.std))
        picture = (prepared.cpu() * std + mean).clamp(0, 1)
        picture = picture[:3] if len(picture) >= 3 else picture[:1].expand(3, -1, -1)
        return (picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()

    def picture(self, file: Path) -> "Image":
        """ValueError for one that can't be read."""
        from crosshead.data.decode.decoding import Decoding
        from crosshead.data.decode.images import decode_image

        return decode_image(file, decoding=self.decoding or Decoding())

    def read(self, file: Path) -> "Tensor":
        """A picture's file as the model's input (1, C, H, W); ValueError for one that can't be read."""
        picture = self.picture(file)
        return self.prepare(picture).unsqueeze(0).to(self.device)


def found_in(inspected: InspectedRun, file: Path) -> tuple[dict[str, Any], tuple[int, int]]:
    """What a run that segments or detects says of a picture's file, as ``crosshead predict`` tells it; and the
    (height, width) in which it sees the picture."""
    assert inspected.trained is not None
    task = inspected.trained.task
    prepared = task.preprocess(inspected.picture(file))
    return task.predictions_of(inspected.trained.model, [prepared], top=_ALL)[0], prepared[0].shape[-2:]


_SAID = 3  # objects or segments of a picture, beside its name


def said_of(inspected: InspectedRun, file: Path, prepared: "Tensor") -> str:
    """What a run says of a picture, (C, H, W) as its input: its class, or the most that it finds in it; or nothing."""
    if inspected.classes is None:
        return ""
    if inspected.trained is None or inspected.trained.task.answers == "classes":
        return _best_class(inspected, prepared)
    task = inspected.trained.task
    if task.targets == "label":
        return ""
    answer, _ = found_in(inspected, file)
    said = [f"{each['class']} at {each['score']:.0%}" for each in answer.get("objects", [])]
    said += [f"{each['share']:.0%} {each['class']}" for each in answer.get("segments", [])]
    return ", ".join(said[:_SAID]) or "nothing found"


def _best_class(inspected: InspectedRun, prepared: "Tensor") -> str:
    import torch

    assert inspected.classes is not None
    with torch.inference_mode():
        found = inspected.model(prepared.unsqueeze(0))
        logits = getattr(found, "logits", found)  # transformers' models give them by name
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, len(inspected.classes)):
        return ""
    shares = logits.float().softmax(-1)[0]
    best = int(shares.argmax())
    return f"{inspected.classes[best]} at {shares[best]:.0%}"


def add_inspected(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights (safetensors or .pth) for a model of timm's or torchvision's that is named instead of RUN",
    )
    add_checkpoint(parser)
    add_device(parser)


def open_inspected(word: str, args: argparse.Namespace) -> InspectedRun:
    """The model that ``word`` names: the folder of a run or of a saved model, or a name with ``--weights``.

    Raises:
        ValueError: neither, or the weights are another model's.
    """
    from crosshead.cli.inspect.named_models import by_name, in_folder

    if not Path(word).exists():
        return _of_name(Path(word).name, by_name(word, args), args)
    if args.weights is not None:
        raise ValueError(
            f"{word} has its own weights; leave --weights out, or name a model of timm's or torchvision's"
        )
    saved = in_folder(Path(word))
    return _of_run(word, args) if saved is None else _of_name(Path(word).resolve().name, saved(), args)


def _of_run(word: str, args: argparse.Namespace) -> InspectedRun:
    from torch.nn import functional

    from crosshead.data.decode.decoding import Decoding
    from crosshead.models.pyramid import Maps
    from crosshead.train.inference import load_run

    run, checkpoint = find_checkpoint(word)
    trained = load_run(run, checkpoint=args.checkpoint or checkpoint, device=args.device)
    task, data = trained.task, trained.recipe.data
    maps = next((module for module in trained.model.modules() if isinstance(module, Maps)), None)

    def prepare(picture: "Image") -> "Tensor":
        found = task.preprocess(picture)
        image = (
            found[0] if isinstance(found, tuple) else found
        )  # beside it, dense tasks keep the picture's size
        return image if maps is None else functional.pad(image, maps.padding(image.shape[-2:]))

    mean, std = data.mean or trained.info.mean, data.std or trained.info.std
    return InspectedRun(
        run.resolve().name,
        trained.model if maps is None else maps,
        prepare,
        mean,
        std,
        trained.info.class_names,
        trained,
        Decoding.of(data),
    )


def _of_name(word: str, opened: "NamedModel", args: argparse.Namespace) -> InspectedRun:
    from crosshead.train.loop.devices import choose_device

    model = opened.model.to(choose_device(args.device or "auto", 0)).eval()
    prepare: Any = lambda picture: opened.prepare(picture.convert("RGB"))  # noqa: E731
    return InspectedRun(
        word, model, prepare, opened.mean, opened.std, opened.classes, None, about=opened.about
    )
