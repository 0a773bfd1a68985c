"""A trained model out of its run folder, to evaluate or to predict with."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from crosshead import models
from crosshead.data.base import DatasetInfo, Splits
from crosshead.data.batching.loader import evaluation_loader
from crosshead.data.datasets.registry import open_splits
from crosshead.data.transforms.pipeline import image_size
from crosshead.recipe.compose import load_recipe
from crosshead.recipe.schema import Recipe
from crosshead.tasks import Task, open_task
from crosshead.train.checkpoint.memory import seen_by, splits_of_run
from crosshead.train.checkpoint.state import load_weights
from crosshead.train.checkpoint.store import BEST, STATE, CheckpointStore, judged, step_in
from crosshead.train.distributed import groups as distributed
from crosshead.train.files import MANIFEST, Damaged, listed_in, verify
from crosshead.train.loop.devices import choose_device
from crosshead.train.loop.evaluate import evaluate
from crosshead.train.run_folder.folder import RECIPE_FILE, check_classes, read_info


@dataclass(frozen=True)
class LoadedRun:
    """A model in evaluation mode, the recipe and classes of its run, the file of its weights and their step; ``run`` is
    the run's folder, None where the weights are no run's."""

    model: nn.Module
    recipe: Recipe
    info: DatasetInfo
    weights: Path
    step: int | None = None
    run: Path | None = None

    @property
    def task(self) -> Task:
        """What its predictions mean."""
        return open_task(self.recipe, self.info)

    def open_data(self, root: str | None = None) -> Splits:
        """Its run's data, split as the run split it; ``root`` replaces the recipe's where the data has moved."""
        recipe = self.recipe
        if root is not None:
            recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root})})
        return open_splits(recipe) if self.run is None else splits_of_run(recipe, self.run)


@dataclass(frozen=True)
class SplitResult:
    """What was found of a model on one split of its data: metrics, tables as JSON holds them, if asked for what it said
    of each image, and why this is no judgement, if it isn't one. ``outputs``: see ``EvalResult``, of one process."""

    split: str
    metrics: dict[str, float]
    details: dict[str, Any]
    predictions: list[dict[str, Any]]
    fault: str | None = None
    outputs: Any = None


def load_run(
    folder: Path, *, checkpoint: str = "best", device: str | None = None, recipe: Recipe | None = None
) -> LoadedRun:
    """The model of a run.

    Args:
        folder: the run folder.
        checkpoint: "best", "last" (the newest whole one), or a step's number.
        device: where to put it; the recipe's choice when None.
        recipe: what to build and to evaluate by instead of the run's own recipe; the classes are the run's.

    Raises:
        ValueError: no run there, no such checkpoint, a damaged one, or one of another model than the recipe's.
    """
    if not (folder / RECIPE_FILE).exists():
        raise ValueError(f"{folder} is not a run folder: it has no {RECIPE_FILE}")
    info = read_info(folder)
    if recipe is None:
        recipe = load_recipe(folder / RECIPE_FILE)
    else:
        info = seen_by(recipe, info)
    weights = find_weights(folder, checkpoint)
    model = open_task(recipe, info).build_model(from_weights=False)
    load_weights(model, safetensors.torch.load_file(weights), str(weights))
    return LoadedRun(_placed(model, recipe, device), recipe, info, weights, step_in(weights.parent), folder)


def preparation_of(trained: LoadedRun) -> dict[str, Any]:
    """How pictures are prepared for the model, and what its outputs are called, under timm's names."""
    recipe, info = trained.recipe.data, trained.info
    height, width = image_size(recipe)
    return {
        "input_size": (info.channels, height, width),
        "mean": info.mean,
        "std": info.std,
        "interpolation": recipe.interpolation,
        "crop_pct": min(height, width) / (recipe.eval_resize or min(height, width)),
        "label_names": list(info.class_names),
    }


def load_for_recipe(
    recipe: Recipe, info: DatasetInfo, weights: Path, *, device: str | None = None
) -> LoadedRun:
    """The model of a recipe, for its data, with the weights of a file (safetensors, or the MOHSA authors' .pth).

    Raises:
        ValueError: the file can't be read, or its weights are those of another model or of other classes.
    """
    model = open_task(recipe, info).build_model(from_weights=False)
    models.load_weights(model, weights, new_classifier=False)
    return LoadedRun(_placed(model, recipe, device), recipe, info, weights)


def _placed(model: nn.Module, recipe: Recipe, device: str | None) -> nn.Module:
    world = distributed.join(recipe.train.rank_timeout_s)
    return model.to(_device(recipe.train.device, device, world.local_rank)).eval()


def _device(recorded: str, wanted: str | None, local_rank: int) -> torch.device:
    """The device that is asked for, or else the run's own, or the best one there is where it was trained elsewhere."""
    if wanted is not None:
        return choose_device(wanted, local_rank)
    try:
        return choose_device(recorded, local_rank)
    except ValueError:
        return choose_device("auto", local_rank)


def find_weights(folder: Path, checkpoint: str = "best") -> Path:
    """The file of a checkpoint's weights, known to be whole: the averaged ones where the run keeps an average."""
    store = CheckpointStore(folder)
    if checkpoint == "last":
        whole, damages = store.newest_good(judged)
        if whole is None:
            reasons = "; ".join(f"{damage.path.name}: {damage.reason}" for damage in damages)
            raise ValueError(f"{folder} has no whole checkpoint ({reasons or 'none was written'})")
        return _weights_in(whole)
    if checkpoint == BEST:
        step = store.best_step()
        found = None if step is None else store.find(step, judged)
        if found is not None:
            return _weights_in(found)
        path = store.folder if step is None else store.path(step)
    elif re.fullmatch(r"[0-9]{1,15}", checkpoint):
        path = store.path(int(checkpoint))
    else:
        raise ValueError(
            f"checkpoint {checkpoint!r}: expected best, last, or a step's number out of {store.steps() or 'none yet'}"
        )
    if not (path / MANIFEST).exists():
        raise ValueError(f"{folder} has no checkpoint {checkpoint!r}; there are the steps {store.steps()}")
    try:
        verify(path, judged)
    except Damaged as error:
        raise ValueError(
            f"{path} is damaged: {error}; `crosshead doctor {folder}` tells what is left"
        ) from None
    return _weights_in(path)


def _weights_in(path: Path) -> Path:
    return path / next(name for name in judged(listed_in(path)) if name != STATE)


def evaluate_run(
    folder: Path,
    *,
    split: str | None = None,
    checkpoint: str = "best",
    device: str | None = None,
    data_root: str | None = None,
) -> dict[str, float]:
    """The metrics of a run's checkpoint on its "train", "validation" or "test" split, on any number of processes.

    ``split`` is "test" unless given, or "validation" where there is no such split. ``data_root`` replaces the recipe's
    where the data has moved.

    Raises:
        ValueError: the run, the checkpoint or the split is not there, or the data has other classes.
    """
    trained = load_run(folder, checkpoint=checkpoint, device=device)
    return evaluate_loaded(trained, split=split, data_root=data_root).metrics


def evaluate_loaded(
    trained: LoadedRun, *, split: str | None = None, data_root: str | None = None, predictions: bool = False
) -> SplitResult:
    """``evaluate_run`` of a model that is loaded, which also says of which split the metrics are; with ``predictions``,
    what the model said of each image."""
    return evaluate_on(trained, trained.open_data(data_root), split, predictions=predictions)


def evaluate_on(
    trained: LoadedRun, splits: Splits, split: str | None = None, *, predictions: bool = False
) -> SplitResult:
    """``evaluate_loaded`` on data that is open."""
    recipe = trained.recipe
    split = split or ("validation" if splits.test is None else "test")
    images = splits.part(split)
    check_classes(splits.info.class_names, trained.info.class_names)
    world = distributed.join(recipe.train.rank_timeout_s)
    task = trained.task
    loader = evaluation_loader(
        task.evaluation_batches(images),
        rank=world.rank,
        world_size=world.size,
        policy=splits.broken_policy(split),
    )
    eval_result = evaluate(
        task,
        trained.model,
        loader,
        images=len(images),
        world=world,
        precision=recipe.train.precision,
        predictions=predictions,
    )
    assert eval_result is not None, "nothing was there to stop this evaluation"
    named = [
        {"path": images.name(row["index"]), **{key: value for key, value in row.items() if key != "index"}}
        for row in eval_result.predictions
    ]
    return SplitResult(
        split, eval_result.metrics, eval_result.details, named, eval_result.fault, eval_result.outputs
    )
