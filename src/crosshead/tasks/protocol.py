"""What the trainer asks of a task, behind which stands all that differs between tasks, and the tasks by name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from PIL import Image
from torch import Tensor, nn

from crosshead.data.base import Batch, DatasetInfo, ImageSet
from crosshead.data.batching.batches import Batches, EpochBatches
from crosshead.data.datasets.contents import Contents
from crosshead.data.transforms.pipeline import check_channels
from crosshead.plugins import Registry
from crosshead.recipe.schema import Recipe
from crosshead.tasks.metrics import Metric

Answers = Literal["classes", "labels", "number", "segments", "objects"]
NOT_FINITE = "what the model says of it is not finite: its weights or the picture's numbers are damaged"


@dataclass(frozen=True)
class Step:
    """What a batch gives to learn from.

    ``losses`` by name, scalars with a gradient: each the **sum** over the batch's units, see ``Task.units``.
    ``counts`` by name, scalars without one: sums over the images that tell how training goes; a name that is left out
    (no one class is right where targets are mixed) is not told of the step.
    """

    losses: dict[str, Tensor]
    counts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found: numbers by name (``tasks.metrics`` describes them), and tables as JSON holds them.

    ``details["classes"]``, a row a class, is printed as a table; ``details["confusion"]``, counts by true and predicted
    class, is drawn. ``predictions`` has one row an image in the data set's order, beginning with its "index", where
    they were asked for. A metric that is undefined is NaN here, null in JSON and "-" on a screen. Where the one that
    selects is, this is no judgement, and ``fault`` says why. ``outputs`` are what the metrics were computed of
    (``ClassificationOutputs`` and its like), where predictions were asked for or they are kept anyway.
    """

    metrics: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    fault: str | None = None
    outputs: Any = field(default=None, compare=False, repr=False)


class Evaluation(Protocol):
    """Judges one pass over a data set. What it keeps is of two kinds: sums of a fixed size, which are added over all
    processes, and rows, which rank 0 gathers. The trainer has seen to it that every image is in them exactly once."""

    def update(self, predictions: Any, batch: Batch) -> None: ...

    def sums(self) -> Tensor:
        """On the CPU, of the same shape and type in every process; an empty tensor where there are none."""

    def rows(self) -> Any:
        """What pickle takes, of this process's images alone."""

    def compute(self, sums: Tensor, rows: list[Any]) -> EvalResult:
        """In rank 0: the sums of all processes, and the rows of each."""


class Task(Protocol):
    """Made of a recipe and the description of its data; see ``tasks.open_task``.

    ``primary`` selects a checkpoint; ``shown`` are the metrics that are told of every evaluation, beside the loss, the
    first one drawn. ``losses`` and ``counts`` name all that a ``Step`` may hold: the processes exchange
    them in this order. What a class says of itself is asked before there is a recipe's data, and by whoever serves more
    than one task.
    """

    targets: ClassVar[Literal["label", "map", "objects"]]
    """What a picture is learned with: one label (of any kind), a map of its pixels' classes, or its objects."""

    answers: ClassVar[Answers]
    """What is said of a picture, see ``predictions_of``: of "classes" its one, the largest of the model's logits
    (B, classes); of "labels" each by itself; a number; or what is where in it."""

    whole_pictures: ClassVar[bool]
    """Whether pictures are taken whole, in any shape, and not cut to ``data.image_size``."""

    takes_windows: ClassVar[bool]
    """Whether ``task.window`` cuts what is larger into windows."""

    def __init__(self, recipe: Recipe, info: DatasetInfo) -> None: ...

    @property
    def primary(self) -> Metric: ...

    @property
    def shown(self) -> tuple[str, ...]: ...

    @property
    def losses(self) -> tuple[str, ...]: ...

    @property
    def counts(self) -> tuple[str, ...]: ...

    def build_model(self, *, from_weights: bool = True) -> nn.Module:
        """The recipe's model, for this data; with the weights that the recipe starts from unless others follow."""

    def training_batches(self, images: ImageSet, *, seed: int, epoch: int) -> EpochBatches[Any]: ...

    def evaluation_batches(self, images: ImageSet) -> Batches[Any]: ...

    def empty_batch(self) -> Batch:
        """One empty image with a valid target, for a process that has no image left while the others still compute.
        ``step`` and ``predict`` on it call every part of the network, as on any other."""

    def loss_divisors(self, batch: Batch) -> dict[str, float] | None:
        """Over how many units (pixels with a class, say) each of the losses of ``batch``, still on the CPU, is a sum.

        Each loss of a step is divided by its units in all processes and accumulated batches. None: the losses are sums
        over images, and divided by the images that the step was meant to have, so that one that could not be read adds
        nothing, and the others weigh the same on any number of processes.
        """

    def step(self, network: nn.Module, batch: Batch) -> Step:
        """The forward pass in training mode, under autocast; ``network`` may be wrapped and is called once."""

    def predict(self, model: nn.Module, batch: Batch) -> Any:
        """The forward pass in evaluation mode, without gradients, under autocast."""

    def undefined(self, held: Contents) -> str | None:
        """What pictures that hold this lack so that ``primary`` could be told of them ("no object"); None where it
        can."""

    def limits(self, held: Contents) -> list[str]:
        """What of pictures that hold this is beyond what the recipe judges."""

    def finite(self, predictions: Any) -> list[bool]:
        """Of each picture, whether what ``predict`` said of it is made of numbers. What is not is never judged."""

    def evaluation(self, *, predictions: bool = False) -> Evaluation:
        """A judge; one that keeps what the model said of each image, if ``predictions`` are asked for."""

    def example(self, model: nn.Module) -> tuple[nn.Module, tuple[Any, ...]]:
        """The part of ``model`` whose multiply-adds are told, and its inputs for one image."""

    def preprocess(self, picture: Image.Image) -> Any:
        """A picture as ``answers`` takes it. Raises ``BrokenImage``."""

    def predictions_of(
        self, model: nn.Module, prepared: list[Any], *, top: int | None = None
    ) -> list[dict[str, Any]]:
        """What ``model`` says of each picture, as JSON holds it; of several possible answers the best ``top``,
        or as many as are usual. Of a picture for which what came is not finite, "fault" says so, and nothing else is
        said."""

    def format_lines(self, answer: dict[str, Any]) -> list[str]:
        """One of the ``answers`` as a person reads it."""


@runtime_checkable
class Drawing(Protocol):
    """What a task has besides whose answers can be shown on the picture."""

    def draw(self, picture: Image.Image, answer: dict[str, Any]) -> dict[str, Image.Image]:
        """Pictures of the size of ``picture``, by what they are ("map", "drawn"): ``crosshead predict`` saves them
        under these names."""


T = TypeVar("T", bound=type[Task])

TASKS: Registry[type[Task]] = Registry("crosshead.tasks", "task")


def register_task(name: str) -> Callable[[T], T]:
    """Decorator of a ``Task``'s class, which is made of a recipe and the description of its data.

    Another package offers one through an entry point of the group ``crosshead.tasks`` under that name.

    Raises:
        ValueError: for a name that is taken.
    """

    def register(cls: T) -> T:
        TASKS.add(name, cls)
        return cls

    return register


def open_task(recipe: Recipe, info: DatasetInfo) -> Task:
    """The task of a recipe, for the data that ``info`` describes.

    Raises:
        ValueError: no such task, or one that this recipe or this data is not for.
    """
    check_channels(recipe.augment, info)
    return TASKS.find(recipe.task.name, "task.name")(recipe, info)
