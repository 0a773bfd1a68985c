"""``crosshead embed``: what a model makes of each picture of a folder, as one vector, in a file."""

import argparse
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.cli.arguments.options import Commands
from crosshead.cli.inspect.inspected import add_inspected, open_inspected

if TYPE_CHECKING:
    import numpy as np

    from crosshead.cli.inspect.inspected import InspectedRun

_EPILOG = """\
examples:
  crosshead embed runs/pets photos/ --out photos.npz
  crosshead embed vit_small_patch16_224 photos/ --weights vit_small.safetensors --out photos.parquet

.npz: arrays embeddings (N, D) float32, names, labels, model; .parquet (needs pyarrow): name, label, embedding.
exit codes: 0 all pictures are in the file; 1 some could not be read; 2 wrong input
"""


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "embed",
        help="embeddings of a folder's pictures, in a file",
        usage="crosshead embed RUN|MODEL FOLDER --out FILE.npz|FILE.parquet [options]",
        description="Writes each picture's pooled features, as the classifier would get them (of a detector or\n"
        "segmenter the mean of the backbone's last map), its name, and its label where sub-folders name it.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RUN|MODEL FOLDER",
        help="the folder of a run, or a timm model with --weights; and pictures",
    )
    parser.add_argument("--out", metavar="FILE", help="FILE.npz or FILE.parquet")
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="pictures at a time (default: 32)"
    )
    add_inspected(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    if len(args.words) != 2:
        raise ValueError(f"expected a run or a model and a folder of pictures, got {len(args.words)} words")
    if args.out is None:
        raise ValueError("--out: expected FILE.npz or FILE.parquet")
    if args.batch_size < 1:
        raise ValueError(f"--batch-size: expected at least 1, got {args.batch_size}")
    from crosshead.cli.commands.predict import find_pictures
    from crosshead.cli.embedding_files import check_target, write_embeddings

    folder, out = Path(args.words[1]), Path(args.out)
    check_target(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of pictures")
    files = find_pictures([str(folder)])
    inspected = open_inspected(args.words[0], args)
    vectors, broken = embed_files(inspected, files, args.batch_size)
    for file, reason in broken:
        print(f"broken: {file}: {reason}", file=sys.stderr)
    unread = {file for file, _ in broken}
    kept = [file for file in files if file not in unread]
    if not kept:
        raise ValueError(f"{folder}: none of its {len(files)} pictures can be read")
    names, labels = named(kept, folder)
    write_embeddings(out, vectors, names, labels, args.words[0])
    left_out = f", {len(broken)} could not be read" if broken else ""
    said = "without labels" if labels is None else f"{len(set(labels))} labels, of their folders"
    print(f"{out}: {len(kept)} pictures, {vectors.shape[1]} numbers each, {said}{left_out}")
    return 1 if broken else 0


def embed_files(
    inspected: "InspectedRun", files: list[Path], batch_size: int
) -> "tuple[np.ndarray, list[tuple[Path, str]]]":
    """(N, D) float32 of the files that can be read, in their order; and those that can't, with the reason."""
    import numpy as np
    import torch

    from crosshead.data.decode.images import BrokenImage

    found, broken = [], []
    for start in range(0, len(files), batch_size):
        read = []
        for file in files[start : start + batch_size]:
            try:
                read.append(inspected.read(file))
            except BrokenImage as error:
                broken.append((file, error.reason))
        for _, alike in groupby(read, key=lambda picture: picture.shape):
            with torch.inference_mode():
                found.append(pooled(inspected.model, torch.cat(list(alike))).float().cpu().numpy())
    return (np.concatenate(found) if found else np.zeros((0, 0), np.float32)), broken


def pooled(model: Any, images: Any) -> Any:
    """(B, D) of images (B, C, H, W): what the classifier would get, or the mean of the backbone's last map."""
    from crosshead.models.pyramid import Maps

    if isinstance(model, Maps):
        return model(images)[-1].mean((2, 3))
    if not hasattr(model, "forward_head"):
        raise ValueError(
            f"{type(model).__name__} does not say what its classifier gets (timm's forward_head)"
        )
    return model.forward_head(model.forward_features(images), pre_logits=True)


def named(files: list[Path], folder: Path) -> tuple[list[str], list[str] | None]:
    """Names below ``folder``, and of each the sub-folder that it lies in; None where all lie in ``folder`` itself."""
    from crosshead.data.decode.images import display_name

    names = [display_name(file.relative_to(folder)) for file in files]
    labels = ["" if file.parent == folder else display_name(Path(file.parent.name)) for file in files]
    return names, labels if any(labels) else None
