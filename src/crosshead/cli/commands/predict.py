"""``crosshead predict``: what a model says of pictures: their classes, or maps of them."""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from crosshead.cli import EXIT_BAD_NUMBERS
from crosshead.cli.arguments.options import (
    Commands,
    add_checkpoint,
    add_device,
    find_checkpoint,
    split_keys,
    used_with,
)

if TYPE_CHECKING:
    from PIL import Image

    from crosshead.data.decode.decoding import Decoding
    from crosshead.train.inference import LoadedRun

_EPILOG = """\
examples:
  crosshead predict runs/digits_mohsa seven.png
  crosshead predict digits.onnx seven.png                   a file of crosshead export; needs no PyTorch
  crosshead predict runs/pets photos/ --top 3 --json > predictions.json
  crosshead predict runs/cells new/ --judged task.classes=[mitosis]
  crosshead predict runs/ade20k_upernet street.jpg --out maps/
  crosshead predict runs/coco huge.tif task.score_threshold=0.05 task.window=1024 --top 500
"""


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "predict",
        help="name what is in pictures",
        usage="crosshead predict RUN|FILE.onnx IMAGE|FOLDER ... [KEY=VALUE ...] [options]",
        description="Prints the most probable classes of each picture, or the share of each class in it where a run\n"
        "tells pixels apart; folders are searched through. KEY=VALUE changes how the run is used.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RUN|FILE.onnx IMAGE ...",
        help="the folder of a run, or a file of crosshead export, and pictures",
    )
    parser.add_argument(
        "--top", type=int, metavar="N", help="how many classes (default: 5) or objects (100) of a picture"
    )
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="pictures at a time (default: 32)"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="of a run that tells pixels apart: where to put each picture's map (PNG, its values the class numbers) "
        "and a drawing of it",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="PIXELS",
        help="of a run that segments or detects: larger pictures go through in overlapping windows of this side, at "
        "their own size (task.window_scale); the same as task.window=PIXELS",
    )
    parser.add_argument(
        "--judged",
        action="store_true",
        help="with the temperature and thresholds that `crosshead judge RUN` chose on validation pictures",
    )
    add_checkpoint(parser)
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object a picture")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    words, overrides = split_keys(args.words)
    if args.window is not None:
        overrides.append(f"task.window={args.window}")
    if len(words) < 2:
        raise ValueError(
            "expected the folder of a run and at least one picture: crosshead predict RUN|FILE.onnx IMAGE ..."
        )
    for name, number in (("--top", args.top), ("--batch-size", args.batch_size)):
        if number is not None and number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number}")
    if words[0].lower().endswith(".onnx"):
        return _predict(args, find_pictures(words[1:]), _of_file(args, words[0], overrides), None)
    (run, checkpoint), places = find_checkpoint(words[0]), words[1:]
    files = find_pictures(places)

    from crosshead.train.inference import load_run

    chosen = {}
    if args.judged:
        from crosshead.judging.choices import Choices

        chosen = Choices.load(run).values()
    recipe = used_with(run, overrides, chosen)
    trained = load_run(run, checkpoint=args.checkpoint or checkpoint, device=args.device, recipe=recipe)
    drawings = None if args.out is None else _Drawings(trained, Path(args.out))
    return _predict(args, files, _OfRun(trained), drawings)


def _predict(
    args: argparse.Namespace, files: list[Path], predictor: "Predictor", drawings: "_Drawings | None"
) -> int:
    show = _JsonPrinter() if args.json else _TextPrinter(predictor)
    broken = 0
    faults: list[str] = []
    for start in range(0, len(files), args.batch_size):
        some = files[start : start + args.batch_size]
        for file, answer in zip(some, predict_files(predictor, some, args.top), strict=True):
            if drawings is not None and not answer.keys() & {"error", "fault"}:
                answer |= drawings.save(file, answer)
            broken += "error" in answer
            faults += [answer["fault"]] if "fault" in answer else []
            show(answer)
    show.end()
    if broken:
        raise ValueError(f"{broken} of {len(files)} pictures could not be read")
    if faults:
        print(f"of {len(faults)} of {len(files)} pictures nothing can be said: {faults[0]}", file=sys.stderr)
        return EXIT_BAD_NUMBERS
    return 0


class Predictor(Protocol):
    """What answers: a run's model with its task, or an exported file."""

    @property
    def decoding(self) -> "Decoding": ...

    def preprocess(self, picture: "Image.Image") -> Any: ...

    def predictions_of(self, pictures: list[Any], *, top: int | None = None) -> list[dict[str, Any]]: ...

    def format_lines(self, answer: dict[str, Any]) -> list[str]: ...


class _OfRun:
    def __init__(self, trained: "LoadedRun") -> None:
        from crosshead.data.decode.decoding import Decoding

        task, self._model = trained.task, trained.model
        self.decoding, self.preprocess, self.format_lines, self._predict = (
            Decoding.of(trained.recipe.data),
            task.preprocess,
            task.format_lines,
            task.predictions_of,
        )

    def predictions_of(self, pictures: list[Any], *, top: int | None = None) -> list[dict[str, Any]]:
        return self._predict(self._model, pictures, top=top)


def _of_file(args: argparse.Namespace, file: str, overrides: list[str]) -> Predictor:
    for name, given in (
        ("--out", args.out),
        ("--checkpoint", args.checkpoint),
        ("--device", args.device),
        ("--judged", args.judged or None),
    ):
        if given is not None:
            raise ValueError(f"{name} is for a run, and {file} is an exported file; leave it out")
    if overrides:
        raise ValueError(
            f"{overrides[0]}: an exported file is used as it was exported; leave it out, or predict with the run"
        )
    from crosshead.export.runtime import OnnxModel

    return OnnxModel(file)


def find_pictures(places: list[str]) -> list[Path]:
    """The files named, and every picture in the folders named; ValueError for a place without any."""
    from crosshead.data.decode.images import SUFFIXES

    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            inside = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise ValueError(
                    f"{place}: no pictures in this folder; expected files ending in {', '.join(SUFFIXES)}"
                )
            files += inside
        elif place.exists():
            files.append(place)
        else:
            raise ValueError(f"{place}: no such file or folder")
    return files


def predict_files(predictor: Predictor, files: list[Path], top: int | None) -> Iterator[dict[str, Any]]:
    """One answer a file, in order: what the model says, or the error where it can't be read."""
    from crosshead.data.decode.decoding import judge_white
    from crosshead.data.decode.images import BrokenImage, decode_image, display_name

    decoding = predictor.decoding
    readable: list[Any] = []
    answers: list[dict[str, Any]] = []
    for file in files:
        try:
            picture = decode_image(file, decoding=decoding)
            readable.append(predictor.preprocess(picture))
            answers.append({"image": display_name(file)})
            if wrong := judge_white(picture.info.get("highest", 0), decoding):
                print(f"warning: {display_name(file)}: {wrong}", file=sys.stderr)
        except BrokenImage as error:
            answers.append({"image": display_name(file), "error": error.reason})
    found = iter(predictor.predictions_of(readable, top=top) if readable else [])
    for answer in answers:
        yield answer if "error" in answer else {**answer, **next(found)}


class _Drawings:
    """Saves what the task draws, each picture's under its own name."""

    def __init__(self, trained: "LoadedRun", folder: Path) -> None:
        from crosshead.data.decode.decoding import Decoding
        from crosshead.tasks import Drawing

        task = trained.task
        self._decoding, self._folder, self._taken = Decoding.of(trained.recipe.data), folder, set[str]()
        if not isinstance(task, Drawing):
            raise ValueError(
                f"--out: a run of task.name={trained.recipe.task.name} draws nothing; leave it out"
            )
        self._draw = task.draw
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--out: {folder} can't be made ({error.strerror})") from None

    def save(self, file: Path, answer: dict[str, Any]) -> dict[str, str]:
        """Where each drawing lies, by what it is."""
        from crosshead.data.decode.images import decode_image, display_name

        stem = next(name for name in self._names(file.stem) if name not in self._taken)
        self._taken.add(stem)
        places = {}
        for what, image in self._draw(decode_image(file, decoding=self._decoding), answer).items():
            place = self._folder / f"{stem}.{what}.png"
            try:
                image.save(place)
            except OSError as error:
                raise ValueError(f"--out: {place} can't be written ({error.strerror or error})") from None
            places[what] = display_name(place)
        return places

    @staticmethod
    def _names(stem: str) -> Iterator[str]:
        """Pictures of one name may come from several folders."""
        yield stem
        yield from (f"{stem}-{number}" for number in count(2))


class _TextPrinter:
    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def __call__(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            print(f"{answer['image']}: {answer['error']}", file=sys.stderr)
            return
        print(answer["image"])
        if "fault" in answer:
            print("  -")
            return
        for line in self._predictor.format_lines(answer):
            print(f"  {line}")
        for what in ("map", "drawn"):
            if what in answer:
                print(f"  {what}: {answer[what]}")

    def end(self) -> None:
        sys.stdout.flush()


class _JsonPrinter:
    """One list over all batches, printed as it grows."""

    def __init__(self) -> None:
        self._before = "["

    def __call__(self, answer: dict[str, Any]) -> None:
        print(f"{self._before}\n  {json.dumps(answer, ensure_ascii=False)}", end="")
        self._before = ","

    def end(self) -> None:
        print("\n]", flush=True)
