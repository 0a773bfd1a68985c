"""The command line of the MOHSA authors' code (which is Swin's): the same words, meaning the same."""

import argparse
from typing import Any

# Their configuration's keys, as --opts takes them, and ours.
KEYS = {
    "AUG.AUTO_AUGMENT": "augment.randaugment",
    "AUG.COLOR_JITTER": "augment.color_jitter",
    "AUG.CUTMIX": "augment.cutmix",
    "AUG.MIXUP": "augment.mixup",
    "AUG.MIXUP_PROB": "augment.mixup_prob",
    "AUG.MIXUP_SWITCH_PROB": "augment.mixup_switch_prob",
    "AUG.REMODE": "augment.erasing_mode",
    "AUG.REPROB": "augment.erasing",
    "DATA.BATCH_SIZE": "data.batch_size",
    "DATA.DATA_PATH": "data.root",
    "DATA.DATASET": "data.name",
    "DATA.IMG_SIZE": "data.image_size",
    "DATA.INTERPOLATION": "data.interpolation",
    "DATA.NUM_WORKERS": "data.num_workers",
    "MODEL.DROP_PATH_RATE": "model.drop_path_rate",
    "MODEL.LABEL_SMOOTHING": "task.label_smoothing",
    "MODEL.NUM_CLASSES": "model.args.num_classes",
    "OUTPUT": "output",
    "PRINT_FREQ": "log.every_steps",
    "SEED": "train.seed",
    "TRAIN.ACCUMULATION_STEPS": "train.accumulation_steps",
    "TRAIN.BASE_LR": "optimizer.lr",
    "TRAIN.CLIP_GRAD": "optimizer.clip_grad",
    "TRAIN.EPOCHS": "train.epochs",
    "TRAIN.LR_SCHEDULER.NAME": "schedule.name",
    "TRAIN.MIN_LR": "schedule.min_lr",
    "TRAIN.OPTIMIZER.BETAS": "optimizer.betas",
    "TRAIN.OPTIMIZER.EPS": "optimizer.eps",
    "TRAIN.OPTIMIZER.NAME": "optimizer.name",
    "TRAIN.USE_CHECKPOINT": "train.grad_checkpointing",
    "TRAIN.WARMUP_EPOCHS": "schedule.warmup_epochs",
    "TRAIN.WARMUP_LR": "schedule.warmup_lr",
    "TRAIN.WEIGHT_DECAY": "optimizer.weight_decay",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("as in the MOHSA authors' code (--output, --tag and --resume too)")
    group.add_argument(
        "--cfg", metavar="FILE", help="the recipe: configs/cait/..., a file, or a shipped name"
    )
    group.add_argument("--data-path", metavar="DIR", help="the same as data.root=DIR")
    group.add_argument("--batch-size", type=int, metavar="N", help="images a process: data.batch_size=N")
    group.add_argument("--accumulation-steps", type=int, metavar="N", help="train.accumulation_steps=N")
    group.add_argument("--use-checkpoint", action="store_true", help="train.grad_checkpointing=true")
    group.add_argument(
        "--disable-amp", "--disable_amp", action="store_true", help="float32: train.precision=fp32"
    )
    group.add_argument("--pretrained", metavar="FILE", help="weights to start from: model.init_from=FILE")
    group.add_argument(
        "--eval", action="store_true", help="only evaluate the run, checkpoint or weights that --resume names"
    )
    group.add_argument("--throughput", action="store_true", help="only measure images a second")
    group.add_argument(
        "--opts", nargs="+", metavar="KEY VALUE", help="TRAIN.EPOCHS 30 ..., their keys or ours"
    )


def values(args: argparse.Namespace) -> dict[str, Any]:
    """What these arguments say, under a recipe's dotted keys."""
    found: dict[str, Any] = _options(args.opts or [])
    if args.data_path is not None:
        found["data.root"] = args.data_path
    if args.pretrained is not None:
        found["model.init_from"] = args.pretrained
    if args.batch_size is not None:
        found["data.batch_size"] = args.batch_size
    if args.accumulation_steps is not None:
        found["train.accumulation_steps"] = args.accumulation_steps
    if args.use_checkpoint:
        found["train.grad_checkpointing"] = True
    if args.disable_amp:
        found["train.precision"] = "fp32"
    return found


def _options(words: list[str]) -> dict[str, Any]:
    from crosshead.recipe.yaml import RecipeError, read_value

    if len(words) % 2:
        raise RecipeError(f"--opts: expected pairs KEY VALUE, got {len(words)} words: {' '.join(words)}")
    found = {}
    for key, text in zip(words[::2], words[1::2], strict=True):
        if key.isupper() and key not in KEYS:
            raise RecipeError(
                f"--opts: {key} has no counterpart here; expected {', '.join(KEYS)}, or a recipe's key"
            )
        off = key == "AUG.AUTO_AUGMENT" and text == "none"
        found[KEYS.get(key, key)] = None if off else read_value(text)
    return found
