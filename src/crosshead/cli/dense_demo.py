"""``crosshead demo dense``: digits on photographs, told apart pixel by pixel and found with their outlines."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from crosshead.cli.terminal.wording import duration, figures

if TYPE_CHECKING:
    from PIL import Image

    from crosshead.train import Result
    from crosshead.train.inference import LoadedRun

_STEPS = 500  # a third to a half of what the recipes take
_RECIPES = {"every pixel": "scenes_semantic_fpn", "every digit": "scenes_mask_rcnn"}
_PICTURES = 4  # test scenes of each, the first ones
_SIDE = 480  # pixels that they are enlarged to, so that names can be read
_GAP = 8


def run_dense(args: argparse.Namespace, words: list[str], folder: Path) -> int:
    """Trains both recipes for a while, draws test scenes, and says what came out and where it is."""
    from crosshead.cli.terminal.progress import watch
    from crosshead.recipe import load_recipe
    from crosshead.train import train

    values: dict[str, object] = {"output": str(folder)}
    if args.seed is not None:
        values["train.seed"] = args.seed
    if args.device is not None:
        values["train.device"] = args.device
    results: dict[str, Result] = {}
    for what, name in _RECIPES.items():
        recipe = load_recipe(name, [f"train.steps={_STEPS}", *words], values)
        results[what] = train(recipe, folder=folder / name, callback=watch(recipe.log))
        if results[what].status != "finished":
            return results[what].exit_code
        print()
    pictures = {what: _draw(result, args.device) for what, result in results.items()}
    _print(results, pictures)
    return 0


def _draw(result: "Result", device: str | None) -> list[Path]:
    """Some test scenes, each beside what the run says of it."""
    from crosshead.train.inference import load_run

    trained = load_run(result.folder, device=device)
    splits = trained.open_data()
    assert splits.test is not None, "scenes have a test split"
    (folder := result.folder / "pictures").mkdir(exist_ok=True)
    places = []
    for i in range(min(_PICTURES, len(splits.test))):
        place = folder / f"test-scene-{i}.png"
        _side_by_side(trained, splits.test.load(i)).save(place)
        places.append(place)
    return places


def _side_by_side(trained: "LoadedRun", scene: "Image.Image") -> "Image.Image":
    """A scene as it is, enlarged, and with what the model says of it: of the scene in its own size, as in training."""
    from PIL import Image

    from crosshead.tasks import Drawing, open_task

    data = trained.recipe.data.model_copy(update={"eval_resize": min(scene.size)})
    task = open_task(trained.recipe.model_copy(update={"data": data}), trained.info)
    assert isinstance(task, Drawing)
    factor = max(1, _SIDE // max(scene.size))
    large = scene.convert("RGB").resize(
        (scene.width * factor, scene.height * factor), Image.Resampling.BICUBIC
    )
    (answer,) = task.predictions_of(trained.model, [task.preprocess(large)], top=100)
    both = Image.new("RGB", (2 * large.width + _GAP, large.height), "white")
    both.paste(large, (0, 0))
    both.paste(task.draw(large, answer)["drawn"], (large.width + _GAP, 0))
    return both


def _print(results: "dict[str, Result]", pictures: dict[str, list[Path]]) -> None:
    for what, result in results.items():
        print(f"{what}: {result.folder.name}, {result.parameters:,} parameters, {duration(result.seconds)}")
        print(f"  test          {figures(result.test, result.shown)} ({result.test['count']:.0f} scenes)")
        for place in pictures[what]:
            print(f"  drawn         {place}")
        print(f"  run           {result.folder}, its curves in curves.png")
    names = " and ".join(_RECIPES.values())
    print(
        f"\nShort runs of one seed each, {_STEPS} steps unless you said otherwise: {names}\ngo further by themselves. "
        "On each picture the scene is to the left, and what the run says of it to the right."
    )
    run = results["every digit"].folder
    print(f"\nnext: crosshead eval {run}\n      crosshead predict {run} PICTURE --out drawn/")
