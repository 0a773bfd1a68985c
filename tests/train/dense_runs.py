"""Small runs that segment and that find objects, both on scenes, for the tests of what a run survives."""

import crosshead.data.datasets.scenes as scenes
from crosshead.recipe import load_recipe

FEW = {"train": 12, "validation": 4, "test": 3}
_SMALL = [
    "model.args.depths=[1,1,1]", "model.args.dims=[8,12,16]", "model.args.num_heads=[1,2,2]",
    "model.args.attention_stages=[2]", "model.args.landmarks=2", "model.drop_path_rate=0.1", "data.image_size=48",
    "data.batch_size=2", "data.eval_batch_size=2", "train.steps=9", "train.accumulation_steps=2",
    "train.device=cpu", "train.deterministic=true", "train.ema_decay=0.9", "train.rank_timeout_s=60",
    "schedule.warmup_steps=2", "log.every_steps=1", "log.tensorboard=false", "checkpoint.every_steps=2",
    "augment.horizontal_flip=0.5", "augment.photometric=0.5",
]  # fmt: skip
_OWN = {
    "segment": (
        "scenes_upernet",
        ["model.segmenter.width=8", "model.segmenter.auxiliary_width=8", "model.segmenter.dropout=0.1"],
    ),
    "detect": (
        "scenes_mask_rcnn",
        [
            "model.detector.pyramid.width=8", "model.detector.box_width=16", "model.detector.mask_layers=[8]",
            "model.detector.roi_samples=16", "model.detector.proposals=[40,20,40,20]", "augment.short_sides=[40,48]",
        ],
    ),
}  # fmt: skip
TASKS = tuple(_OWN)


def few_scenes():
    """Makes the data sets of this process small; ``prepare`` of ``runs.start`` in others."""
    scenes.LENGTHS = FEW


def dense_recipe(task, *words):
    """Nine steps of 2 x 2 of twelve scenes, with every kind of randomness that the task has; three evaluations."""
    name, own = _OWN[task]
    return load_recipe(name, [*_SMALL, *own, *words])


def for_two(task, *words):
    """The same for two processes; one whose rank 0 is killed before they met waits for up to three times the limit."""
    own = ["data.batch_size=2", "train.accumulation_steps=1", "train.rank_timeout_s=30"]
    return dense_recipe(task, *own, *words)
