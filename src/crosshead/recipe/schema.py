"""What a recipe may say, section by section, with its defaults.

Every number is strict (``lr: no`` is an error, not 0) and every unknown key is one too.
The defaults are the shared part of the MOHSA paper's recipe (arXiv 2410.14874, section 4).
"""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(gt=0.0)]
Rate = Annotated[float, Field(ge=0.0, le=1.0)]


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 < pair[0] <= pair[1]:
        raise ValueError(f"wanted two numbers above 0, the smaller one first, came {list(pair)}")
    return pair


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if not -math.inf < pair[0] < pair[1] < math.inf:
        raise ValueError(f"wanted two numbers, the smaller one first, came {list(pair)}")
    return pair


Limits = Annotated[tuple[float, float], AfterValidator(_ascending)]
Range = Annotated[tuple[float, float], AfterValidator(_rising)]
Moment = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class InteractionConfig(Section):
    """What happens between the heads of a model that was built without it; see ``crosshead.swap``.

    ``kind`` is one of ``crosshead.layers.INTERACTIONS``; further keys are its options (``overlap: index``).
    """

    model_config = ConfigDict(extra="allow")

    kind: str = "overlap"
    init: Literal["preserve", "paper"] = "preserve"
    blocks: list[int] | None = None

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _options_are_the_kinds(self) -> "InteractionConfig":
        own = ("kind", "init", "blocks")
        from crosshead.layers.registry import interaction_class  # here: it brings torch, which takes seconds

        interaction_class(self.kind).check_options(self.options, beside=own)
        return self


class SegmenterConfig(Section):
    """What makes a segmenter of a backbone; see ``crosshead.models.segmenters``. Further keys are its options
    (``width: 128``, ``pyramid: {width: 256}``)."""

    model_config = ConfigDict(extra="allow")

    name: Literal["semantic_fpn", "upernet", "linear"] = "semantic_fpn"
    out_indices: list[int] | None = None  # the backbone's stages that serve; the last four when unset
    window: Positive | None = 14  # of a plain ViT's attention, in patches
    global_blocks: list[int] | None = None

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class DetectorConfig(Section):
    """What makes a detector of a backbone; see ``crosshead.models.detectors``. Further keys are its options
    (``norm: true``, ``pyramid: {width: 256}``)."""

    model_config = ConfigDict(extra="allow")

    name: Literal["retinanet", "faster_rcnn", "mask_rcnn"] = "mask_rcnn"
    out_indices: list[int] | None = None  # as a segmenter's, these three
    window: Positive | None = 14
    global_blocks: list[int] | None = None

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class ModelConfig(Section):
    """A model in timm's registry, this library's own included.

    ``overlap`` is a schedule (``index``, ``constant:4``, ``fraction:0.5``, a list ...); it is passed on to
    ``mohsa_*`` models and to the interaction. ``args`` go to ``timm.create_model`` as they are.
    """

    name: str = "mohsa_vit_micro_patch2_32"
    overlap: str | int | float | list[int] | None = None
    drop_path_rate: Rate = 0.0
    args: dict[str, Any] = {}
    interaction: InteractionConfig | None = None
    segmenter: SegmenterConfig | None = None
    detector: DetectorConfig | None = None
    init_from: str | None = None  # a checkpoint (safetensors, or the authors' .pth) to start from

    @model_validator(mode="before")
    @classmethod
    def _of_version_0_1(cls, data: Any) -> Any:
        """Recipes of 0.1 say ``swap: {kind, init, blocks, options}``, and runs of it hold that key always."""
        if not isinstance(data, dict) or "swap" not in data:
            return data
        data = dict(data)
        swap = data.pop("swap")
        if isinstance(swap, dict):
            swap = {k: v for k, v in swap.items() if k != "options"} | (swap.get("options") or {})
        if swap is not None and data.get("interaction") is not None:
            raise ValueError("model.swap is the old name of model.interaction; give the latter alone")
        return data if swap is None else data | {"interaction": swap}

    @model_validator(mode="after")
    def _one_head(self) -> "ModelConfig":
        if self.segmenter is not None and self.detector is not None:
            raise ValueError("model.segmenter and model.detector are both set; set one of them to null")
        return self


_RECORDED = {
    "name",
    "root",
    "image_size",
    "channels",
    "mean",
    "std",
    "validation",
    "eval_resize",
    "max_megapixels",
}


class DataConfig(Section):
    name: str = "digits"
    root: str | None = None
    image_size: Positive | tuple[Positive, Positive] | None = (
        8  # None: the one that the first weights are for
    )
    channels: Positive = 3  # 1 and 3 are made of each other; of others a picture must have as many
    mean: list[float] | None = None  # one a channel; the data set's own when unset
    std: list[float] | None = None
    validation: Rate = 0.1  # share of the training set held out, where the data set has no such split
    split_seed: Annotated[int, Field(ge=0)] | None = None  # chooses which; unset, the run's seed does
    eval_resize: Positive | None = None  # the shorter side before the centre crop
    longest: Positive | None = None  # of pictures with boxes: the longer side after resizing
    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    batch_size: Positive = 128  # a process
    eval_batch_size: Positive | None = None
    sampling: Literal["uniform", "balanced"] = "uniform"  # balanced: every class equally often in an epoch
    num_workers: Annotated[int, Field(ge=0)] = 0
    on_broken_train: Literal["fail", "skip"] = "skip"
    on_broken_eval: Literal["fail", "skip"] = "fail"
    # Of an object that is broken, a box of no width for one: it is left out, or its whole picture counts as broken.
    on_broken_object: Literal["skip", "picture"] = "skip"
    max_broken: Annotated[int, Field(ge=0)] = 100  # pictures, and objects
    max_objects: Positive = 1000  # of a picture: one with more counts as broken
    max_megapixels: Annotated[float, Field(gt=0)] = 64.0
    follow_links: bool = False  # whether links may lead out of the data folder
    # Of 16-bit pictures, the value that is white: a number, each picture's largest, or (auto) that of 8, 10, 12, 14 or
    # 16 bits which holds the training pictures; what was found is recorded with the run.
    white_level: Literal["auto", "per_image"] | Annotated[int, Field(gt=0, le=65535)] = "auto"
    value_range: Limits | None = (
        None  # of floating-point and 32-bit pictures: what is black, and what is white
    )
    exif: Literal["apply", "ignore"] = (
        "apply"  # ignore: pixels as they are stored, as some annotations mean them
    )

    @model_validator(mode="after")
    def _recorded_before_white_levels(self) -> "DataConfig":
        """A run's recipe has every key; one without this key divided 16-bit pictures by 257."""
        said = self.model_fields_set
        return (
            self.model_copy(update={"white_level": 65535})
            if "white_level" not in said and said >= _RECORDED
            else self
        )


class AugmentConfig(Section):
    horizontal_flip: Rate = 0.5
    crop_scale: Range | None = (0.08, 1.0)  # random resized crop; None: plain resize
    crop_ratio: Range = (0.75, 4 / 3)
    affine_degrees: Annotated[float, Field(ge=0)] = 0.0
    affine_translate: Rate = 0.0
    affine_scale: Range | None = None
    randaugment: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: Annotated[float, Field(ge=0)] | None = 0.4
    erasing: Rate = 0.25
    erasing_mode: Literal["pixel", "rand", "const"] = "pixel"
    mixup: Annotated[float, Field(ge=0)] = 0.8
    cutmix: Annotated[float, Field(ge=0)] = 1.0
    mixup_prob: Rate = 1.0
    mixup_switch_prob: Rate = 0.5
    # Of pictures with maps or boxes:
    scale_range: Range | None = None  # random sizes, as factors of the evaluation's
    crop_most: Annotated[float, Field(gt=0, le=1)] = 1.0  # of a crop that one class may have
    photometric: Rate = (
        0.0  # how likely each of brightness, contrast, saturation, hue and channel order changes
    )
    # Of pictures with boxes:
    crop_chance: Rate = 0.0  # how likely a random piece is taken, each side half of the picture's or more
    short_sides: list[Positive] | None = (
        None  # the shorter side, one of these at random, in place of eval_resize
    )
    jitter_range: Range | None = (
        None  # large-scale jitter: factors of data.image_size, to which it is cut or padded
    )


class TaskConfig(Section):
    """What is learned and what selects a checkpoint; which task knows which key stands beside it."""

    name: Literal["classify", "multilabel", "regress", "segment", "detect"] = "classify"
    select_by: str | None = None  # a metric: loss, balanced_accuracy, miou ...; the task's own when unset
    label_smoothing: Rate = 0.1  # of classes and labels
    # Of classes (segment: of pixels) by name, 1 for the others; or, for classify, one a class, or balanced.
    class_weights: Literal["balanced"] | list[Weight] | dict[str, Weight] | None = None
    focal_gamma: Weight | None = (
        None  # classify: focal loss, in which images that are well known weigh little
    )
    auxiliary_weight: Weight = 0.4  # segment: of an auxiliary head's loss
    window: Positive | None = (
        None  # segment, detect: larger pictures go in overlapping windows of so many pixels
    )
    window_scale: Weight = 1.0  # of a picture that is cut into windows: to this share of its own size first
    score_threshold: Rate = 0.3  # detect: of what predict tells and draws; judged is all that the model finds
    max_detections: Positive = 100  # detect: objects of a class in a picture that are judged, the best first


class OptimizerConfig(Section):
    name: str = "adamw"
    lr: Annotated[float, Field(gt=0)] = 5e-4
    lr_batch_size: Positive | None = None  # if set, lr belongs to this total batch size and scales linearly
    betas: tuple[Moment, Moment] = (0.9, 0.999)
    eps: Annotated[float, Field(ge=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    clip_grad: Annotated[float, Field(gt=0)] | None = 5.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = (
        None  # the rate of each block below, over its upper's
    )
    head_lr: Annotated[float, Field(gt=0)] | None = None  # the classifier's rate; lr's course, scaled


class ScheduleConfig(Section):
    """After a linear warm-up from ``warmup_lr`` to ``optimizer.lr``, step by step: ``cosine`` or ``poly`` (a power of
    the share that is left) down to ``min_lr``, ``step`` (times ``gamma`` at the ``milestones``), or ``constant``."""

    name: Literal["cosine", "poly", "step", "constant"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 20.0
    warmup_steps: Annotated[int, Field(ge=0)] | None = None  # in place of warmup_epochs
    power: Annotated[float, Field(gt=0)] = 0.9
    milestones: list[Annotated[float, Field(gt=0)]] = []  # in epochs from the start, ascending
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup_lr: Annotated[float, Field(ge=0)] = 5e-7
    min_lr: Annotated[float, Field(ge=0)] = 5e-6


class TrainConfig(Section):
    epochs: Positive = 100
    steps: Positive | None = None  # the run's length in optimizer steps, in place of epochs
    seed: Annotated[int, Field(ge=0)] = 0
    paired_init: bool = (
        False  # initial tensors keyed on (seed, name), so that unlike models start as alike as can be
    )
    accumulation_steps: Positive = 1
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    grad_checkpointing: bool = False
    parallel: Literal["copies", "shards"] = "copies"  # of the model in several processes: DDP, or FSDP2
    deterministic: bool = False
    freeze: list[str] = []  # parameters to leave as they are, by name: ["patch_embed.*", "blocks.[0-5].*"]
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    eval_every_epochs: Positive = 1
    patience: Positive | None = None  # evaluations in a row without a better one after which training ends
    max_bad_steps: Positive = 10  # non-finite losses or gradients in a row before the run stops
    rank_timeout_s: Positive = 600


class CheckpointConfig(Section):
    """``last`` is written at the end of every epoch and, if set, every so many steps or minutes."""

    every_steps: Positive | None = None
    every_minutes: Annotated[float, Field(gt=0)] | None = None
    keep_last: Positive = 2


class LogConfig(Section):
    every_steps: Positive = 20
    tensorboard: bool = True
    progress: Literal["auto", "bar", "lines"] = "auto"
    observers: list[str] = []  # beside the logs on disk: wandb, mlflow, or one that a package offers
    forecast: bool = False  # say before training how long it will take, from a few steps


class Recipe(Section):
    """One run, whole. A recipe's file may also say ``base``; see ``crosshead.recipe.compose``."""

    name: str = "run"
    notes: str | None = None
    output: str = "runs"
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    task: TaskConfig = TaskConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()

    @property
    def split_seed(self) -> int:
        """The seed of the held-out validation split."""
        own = self.data.split_seed
        return self.train.seed if own is None else own

    @model_validator(mode="after")
    def _warmup_fits(self) -> "Recipe":
        schedule, train = self.schedule, self.train
        falls = schedule.name in ("cosine", "poly")
        in_epochs = schedule.warmup_steps is None and train.steps is None
        if falls and in_epochs and schedule.warmup_epochs >= train.epochs:
            raise ValueError(
                f"schedule.warmup_epochs is {schedule.warmup_epochs:g} and train.epochs "
                f"{train.epochs}: no step is left for the {schedule.name}; shorten the warm-up or train longer"
            )
        milestones = schedule.milestones
        if (schedule.name == "step") != bool(milestones) or milestones != sorted(milestones):
            raise ValueError(
                f"schedule.milestones is {milestones} and schedule.name {schedule.name}: wanted step with the epochs, "
                "ascending, at which the rate falls, or another schedule without"
            )
        return self
