"""``crosshead push``: a run's model on Hugging Face's hub, with a card."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from crosshead.cli.arguments.options import Commands, add_checkpoint, find_checkpoint

if TYPE_CHECKING:
    from torch.nn import Module

_EPILOG = """\
examples:
  crosshead push runs/pets me/pets_mohsa                     config.json, model.safetensors and a card, README.md
  crosshead push runs/pets me/pets_mohsa --folder look/      writes them there to be read, and sends nothing
  crosshead push my_model me/mine --private                  a folder of crosshead.save
Then, anywhere: crosshead.load("hf-hub:me/pets_mohsa"). `hf auth login` or HF_TOKEN says who you are.
"""


def register(commands: Commands) -> None:
    parser = commands.add_parser(
        "push",
        help="send a run's model to Hugging Face's hub",
        usage="crosshead push RUN|MODEL OWNER/NAME [options]",
        description="Sends a model to Hugging Face's hub in timm's form, with a card of what the run knows of it:\n"
        "data, recipe, figures with their spread over other seeds beside it, cost, how to load it, limits.\n"
        "A card that someone else wrote there stays as it is.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "source", metavar="RUN|MODEL", help="the folder of a run that classifies, or of crosshead.save"
    )
    parser.add_argument("repo", metavar="OWNER/NAME", help="the repository, OWNER/NAME@BRANCH for a branch")
    parser.add_argument("--folder", metavar="DIR", help="write the files there, and send nothing")
    parser.add_argument("--private", action="store_true", help="a new repository is seen by its owner alone")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    add_checkpoint(parser)
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace) -> int:
    from crosshead.hub import push_to_hub, write_repository
    from crosshead.models.saved import CONFIG, load_saved

    source: Module | Path
    if (Path(args.source) / CONFIG).is_file():
        if args.checkpoint is not None:
            raise ValueError(f"--checkpoint is for a run, and {args.source} is none; leave it out")
        source, checkpoint = load_saved(args.source), "best"
    else:
        source, checkpoint = find_checkpoint(args.source)
    checkpoint = args.checkpoint or checkpoint
    if args.folder is not None:
        folder = write_repository(source, args.folder, args.repo, checkpoint=checkpoint)
        for each in sorted(folder.iterdir()):
            print(f"{each}: {each.stat().st_size:,} bytes")
        return 0
    address = push_to_hub(
        source, args.repo, checkpoint=checkpoint, private=args.private, message=args.message
    )
    print(address)
    print(f'load it: crosshead.load("hf-hub:{args.repo}")')
    return 0
