"""What is measured of heads at the command line: of one model, and of two recipes' runs, block by block."""

import argparse
import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from crosshead.cli.inspect.images import open_images
from crosshead.cli.inspect.inspected import open_inspected

if TYPE_CHECKING:
    from torch import Tensor, nn


def measure_run(word: str, args: argparse.Namespace) -> dict[str, Any]:
    """Everything that is asked of one model, as plain data."""
    from crosshead.heads import ablate_heads, measure_heads

    inspected = open_inspected(word, args)
    images = open_images(inspected, args)
    if args.ablate and (
        inspected.trained is None or args.pictures or inspected.trained.task.answers != "classes"
    ):
        raise ValueError(
            "--ablate needs images and their classes: name a run that classifies, without --pictures"
        )
    layers = measure_heads(inspected.model, images.batches(masks=args.masks), queries=args.queries)
    found: dict[str, Any] = {
        "model": inspected.name,
        "images": {"split": images.split, "count": images.count},
        "layers": [asdict(layer) for layer in layers],
    }
    if args.ablate:
        found["ablation"] = [asdict(each) for each in ablate_heads(inspected.model, images.labelled, _loss)]
    return found


def _loss(model: "nn.Module", images: "Tensor", targets: "Tensor") -> "Tensor":
    import torch.nn.functional as F

    return F.cross_entropy(model(images).float(), targets, reduction="none")


def finite(values: Any) -> Any:
    """The same with None for what is no number, as JSON wants it."""
    if isinstance(values, dict):
        return {key: finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


# Named beforehand: what the iMHSA paper argues with. All of them over all blocks are judged together.
COMPARED = {
    "output_variance": "variance of outputs between heads",
    "map_similarity_mean": "similarity of maps",
    "cka_mean": "similarity of outputs (CKA)",
    "effective_heads_cka": "effective heads (outputs)",
    "alignment": "alignment with objects",
}
PICTURE, NUMBERS = "heads_against", "heads_against.json"


def compare_runs(words: list[str], args: argparse.Namespace) -> int:
    """Measures all runs on the same images, writes numbers and figures (PNG and PDF), prints what differs.

    With fewer than three seeds on a side the runs are described beside each other, and nothing is tested.

    Raises:
        ValueError: models without a block in common.
    """
    from crosshead.compare.recipes import FEWEST_SEEDS, compare_recipes, mean_interval

    sides = {"a": words, "b": args.against}
    measured = {side: [measure_run(run, args) for run in runs] for side, runs in sides.items()}
    values = {side: gather_measures(runs) for side, runs in measured.items()}
    common = [name for name in values["a"] if name in values["b"]]
    if not common:
        raise ValueError("the two sides have no block in common that could be compared")
    a, b = ({name: values[side][name] for name in common} for side in sides)
    folder = Path(args.output or ".")
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {
        "a": words,
        "b": args.against,
        "images": measured["a"][0]["images"],
        "seeds": [len(words), len(args.against)],
        "intervals": {s: {n: vars(mean_interval(v)) for n, v in each.items()} for s, each in values.items()},
    }
    if min(len(runs) for runs in sides.values()) < FEWEST_SEEDS:
        lines = _described(a, b, numbers)
    else:
        found = compare_recipes(a, b)
        numbers["differences"] = {name: vars(difference) for name, difference in found.items()}
        lines = _tested(found, numbers)
    (folder / NUMBERS).write_text(json.dumps(finite(numbers), indent=1) + "\n")
    draw(folder, values, common, (_name(words), _name(args.against)))
    print("\n".join([*lines, f"numbers: {folder / NUMBERS}; figures: {folder / PICTURE}.png and .pdf"]))
    return 0


def gather_measures(runs: list[dict[str, Any]]) -> dict[str, list[float]]:
    """``measure, block N`` -> a value a run, the mean over heads; measures that a run lacks are left out."""
    gathered: dict[str, list[float]] = {}
    for run in runs:
        for layer in run["layers"]:
            for name in COMPARED:
                value = layer["values"].get(name)
                if value is not None:
                    mean = fmean(value) if isinstance(value, list) else value
                    gathered.setdefault(f"{name}, block {layer['block']}", []).append(mean)
    return {name: values for name, values in gathered.items() if len(values) == len(runs)}


def draw(
    folder: Path, values: dict[str, dict[str, list[float]]], common: list[str], names: tuple[str, str]
) -> None:
    """A panel a measure, the blocks along it: means over seeds with 95 % intervals, each seed as a dot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from crosshead.compare.recipes import mean_interval

    measures = [name for name in COMPARED if any(each.startswith(f"{name},") for each in common)]
    figure = Figure(figsize=(3.4 * len(measures), 3.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    for ax, measure in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True):
        for side, colour, shift, marker in (("a", "#1f6fb4", -0.08, "o"), ("b", "#c1432b", 0.08, "s")):
            blocks = [int(n.rpartition(" ")[2]) for n in common if n.startswith(f"{measure},")]
            found = [values[side][f"{measure}, block {block}"] for block in blocks]
            intervals = [mean_interval(each) for each in found]
            places = [block + shift for block in blocks]
            errors = [i.high - i.mean for i in intervals]
            means = [i.mean for i in intervals]
            label = names[0 if side == "a" else 1]
            ax.errorbar(
                places, means, errors, color=colour, marker=marker, markersize=4, capsize=2, label=label
            )
            for place, each in zip(places, found, strict=True):
                ax.plot([place] * len(each), each, ".", color=colour, alpha=0.4, markersize=3)
        ax.set_title(COMPARED[measure], fontsize=9)
        ax.set_xlabel("block", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    # Beside the panels, where it covers no point.
    figure.legend(handles, labels, loc="outside upper left", ncols=2, fontsize=8, frameon=False)
    for suffix in ("png", "pdf"):
        figure.savefig(folder / f"{PICTURE}.{suffix}")


def _tested(found: dict[str, Any], numbers: dict[str, Any]) -> list[str]:
    images = numbers["images"]
    lines = [
        f"{numbers['seeds'][0]} runs against {numbers['seeds'][1]}, {images['count']} images of {images['split']}; "
        f"Welch's t on the seeds' means, Holm over {len(found)} comparisons"
    ]
    differing = {name: each for name, each in found.items() if each.differs()}
    lines += [
        f"  {name}: {each.difference:+.3f} [{each.low:+.3f}, {each.high:+.3f}], p {each.p_adjusted:.3f}"
        for name, each in differing.items()
    ]
    return lines if differing else [*lines, "  no measure of any block differs at 95 %: nothing is claimed"]


def _described(a: dict[str, list[float]], b: dict[str, list[float]], numbers: dict[str, Any]) -> list[str]:
    """Means side by side, a line a measure and block: of so few runs nothing can be said of their recipes."""
    images, seeds = numbers["images"], numbers["seeds"]
    counts = " against ".join(f"{count} run{'s' if count > 1 else ''}" for count in seeds)
    return [
        f"{counts}, {images['count']} images of {images['split']}: described, not tested. Fewer than three seeds a "
        "side say nothing of their recipes.",
        *(
            f"  {name}: {fmean(a[name]):.3f}, {fmean(b[name]):.3f} ({fmean(b[name]) - fmean(a[name]):+.3f})"
            for name in a
        ),
    ]


def _name(runs: list[str]) -> str:
    """What the runs' folders have in common, or the first one's name."""
    first, *others = (Path(run).resolve().name for run in runs)
    same = [all(other.startswith(first[: i + 1]) for other in others) for i in range(len(first))]
    common = first[: sum(same)].rstrip("_-.0123456789")
    return re.sub(r"[_.-](s|seed)$", "", common) or first
