"""What a recipe may say, section by section, with its defaults.

Every number is strict (``lr: no`` is an error, not 0) and every unknown key is one too.
The defaults are the shared part of the MOHSA paper's recipe (arXiv 2410.14874, section 4).
"""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(gt=0.0)]
Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]  # of something, that must leave some of it
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0.0)]


def key(default: Any, description: str, *, unit: str | None = None) -> Any:
    """A key of a section. From here come ``crosshead recipes --describe``, docs/recipe.md and the JSON schema."""
    return Field(default=default, description=description, json_schema_extra={"unit": unit} if unit else None)


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 < pair[0] <= pair[1]:
        raise ValueError(f"expected two numbers above 0, the smaller one first, got {list(pair)}")
    return pair


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if not -math.inf < pair[0] < pair[1] < math.inf:
        raise ValueError(f"expected two numbers, the smaller one first, got {list(pair)}")
    return pair


# The text is what a key of this kind expects; see ``recipe.describe``.
Limits = Annotated[tuple[float, float], AfterValidator(_ascending), "two numbers, the smaller one first"]
Range = Annotated[tuple[float, float], AfterValidator(_rising), "two numbers above 0, the smaller one first"]
Moment = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class InteractionConfig(Section):
    """What happens between the heads of a model that was built without it; see ``crosshead.swap``.

    ``kind`` is one of ``crosshead.layers.INTERACTIONS``; further keys are its options (``overlap: index``).
    """

    model_config = ConfigDict(extra="allow")

    kind: str = key("overlap", "Which interaction, by its name: `crosshead.layers.INTERACTIONS`.")
    init: Literal["preserve", "paper"] = key(
        "preserve",
        "Where it starts: with the outputs that the model had without it, or as its paper starts it.",
    )
    blocks: list[int] | None = key(
        None, "The blocks that get it, counted from 0, negative ones from the end. Unset: all of them."
    )

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

    name: Literal["semantic_fpn", "upernet", "linear", "queries"] = key(
        "semantic_fpn", "The decoder; queries is none, for a plain ViT alone."
    )
    out_indices: list[int] | None = key(
        None,
        "The backbone's stages that serve, counted from 0; negative ones from the end. Unset: the last four.",
    )
    window: Positive | None = key(
        14,
        "Side of the windows in which a plain ViT's blocks attend. null: over the whole picture.",
        unit="patches",
    )
    global_blocks: list[int] | None = key(
        None,
        "Blocks of a plain ViT that attend over the whole picture all the same. Unset: four, evenly spread.",
    )

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class DetectorConfig(Section):
    """What makes a detector of a backbone; see ``crosshead.models.detectors``. Further keys are its options
    (``norm: true``, ``pyramid: {width: 256}``)."""

    model_config = ConfigDict(extra="allow")

    name: Literal["retinanet", "fcos", "faster_rcnn", "mask_rcnn"] = key(
        "mask_rcnn", "The detector; fcos has no anchors, mask_rcnn finds masks beside boxes."
    )
    anchors: Literal["auto"] | None = key(
        None,
        "auto: sizes and aspects of anchors from the training boxes, where no option says sizes; they are recorded. "
        "Unset: the detector's own.",
    )
    out_indices: list[int] | None = key(
        None,
        "The backbone's stages that serve, counted from 0; negative ones from the end. Unset: the last four.",
    )
    window: Positive | None = key(
        14,
        "Side of the windows in which a plain ViT's blocks attend. null: over the whole picture.",
        unit="patches",
    )
    global_blocks: list[int] | None = key(
        None,
        "Blocks of a plain ViT that attend over the whole picture all the same. Unset: four, evenly spread.",
    )

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class ModelConfig(Section):
    """A model in timm's registry, this library's own included.

    ``overlap`` is a schedule (``index``, ``constant:4``, ``fraction:0.5``, a list ...); it is passed on to
    ``mohsa_*`` models and to the interaction. ``args`` go to ``timm.create_model`` as they are.
    """

    name: str = key(
        "mohsa_vit_micro_patch2_32",
        "The model, by its name in timm's registry (`crosshead models` lists ours).",
    )
    overlap: str | int | float | list[int] | None = key(
        None,
        "How far heads overlap, block by block: a schedule (index, reversed/2, constant:4, fraction:0.5 ...; "
        "`crosshead schedules` shows them), one number for all blocks, or a list. Unset: the model's own.",
        unit="channels",
    )
    drop_path_rate: Rate = key(
        0.0, "How likely the last block is left out in training; linear from 0 in the first."
    )
    args: dict[str, Any] = key({}, "Further arguments of timm.create_model, as they are.")
    interaction: InteractionConfig | None = key(
        None, "What happens between the heads of a model that was built without it. Unset: nothing is put in."
    )
    segmenter: SegmenterConfig | None = key(
        None, "What makes a segmenter of the backbone, for task.name=segment."
    )
    detector: DetectorConfig | None = key(
        None, "What makes a detector of the backbone, for task.name=detect."
    )
    init_from: str | None = key(
        None,
        "Weights to start from: a file (safetensors, or a checkpoint of PyTorch, of which nothing is run), a folder as "
        "timm writes it for a hub, or a run's folder.",
    )

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
    name: str = key("digits", "The data set, by its name (`crosshead data list`).")
    root: str | None = key(None, "The folder that holds it, for data that is not inside a package.")
    image_size: Positive | tuple[Positive, Positive] | None = key(
        8,
        "What the model sees: a side, or [height, width]. null: what the first weights are for.",
        unit="pixels",
    )
    channels: Positive = key(
        3, "Channels of a picture: 1 and 3 are made of each other; of others a picture must have as many."
    )
    mean: list[float] | None = key(
        None, "Of pixels in 0 ... 1, one number a channel, taken off. Unset: the data set's own."
    )
    std: list[float] | None = key(
        None, "Of pixels in 0 ... 1, one number a channel, divided by. Unset: the data set's own."
    )
    validation: Rate = key(
        0.1, "Share of the training pictures held out to select by, where the data set has no such split."
    )
    split_seed: Count | None = key(None, "Chooses which pictures are held out. Unset: train.seed does.")
    groups: str | None = key(
        None,
        "What belongs together and is never split: a regular expression of pictures' names below root, whose first "
        "group (or all that it matches) names it, or a .csv file there with the columns path and group. Unset: nothing "
        "does.",
    )
    folds: Annotated[int, Field(ge=2)] | None = key(
        None,
        "Cross-validation: into how many parts the training pictures are dealt, one of which is the test split. Unset: "
        "the data's own test split is.",
    )
    fold: Count = key(0, "Which of the folds is the test split, from 0.")
    eval_resize: Positive | None = key(
        None, "The shorter side before the centre crop of an evaluation.", unit="pixels"
    )
    longest: Positive | None = key(
        None, "Of pictures with boxes: the longer side after resizing, at most.", unit="pixels"
    )
    interpolation: Literal["bicubic", "bilinear", "nearest"] = key("bicubic", "How pictures are resized.")
    batch_size: Positive = key(128, "Of a training step, in each process.", unit="pictures")
    eval_batch_size: Positive | None = key(
        None, "Of an evaluation, in each process. Unset: batch_size.", unit="pictures"
    )
    sampling: Literal["uniform", "balanced", "repeat_factor"] = key(
        "uniform",
        "Which pictures an epoch has: each once; every class equally often (one class a picture); or those with rare "
        "classes more often.",
    )
    repeat_threshold: Share = key(
        0.1,
        "repeat_factor: a picture comes sqrt(this / the share of pictures with its rarest class) times as often, and "
        "no less than others.",
    )
    num_workers: Count = key(
        0,
        "Processes that read pictures, for each that trains. 0: the training process reads them.",
        unit="processes",
    )
    on_broken_train: Literal["fail", "skip"] = key("skip", "What a training picture that can't be read does.")
    on_broken_eval: Literal["fail", "skip"] = key(
        "fail", "What a picture of an evaluation that can't be read does."
    )
    on_broken_object: Literal["skip", "picture"] = key(
        "skip",
        "Of an object that is broken, a box of no width for one: it is left out, or its picture counts as broken.",
    )
    max_broken: Count = key(
        100, "How many broken ones are left out before the run stops.", unit="pictures, and objects"
    )
    max_objects: Positive = key(1000, "Of a picture; one with more counts as broken.", unit="objects")
    max_megapixels: Weight = key(64.0, "Of a picture; a larger one counts as broken.", unit="megapixels")
    follow_links: bool = key(False, "Whether links may lead out of the data folder.")
    white_level: Literal["auto", "per_image"] | Annotated[int, Field(gt=0, le=65535)] = key(
        "auto",
        "The value of 16-bit pictures that is white: a number, each picture's largest (per_image), or that of 8, 10, "
        "12, 14 or 16 bits which holds the training pictures (auto); what was found is recorded with the run.",
    )
    value_range: Limits | None = key(
        None, "Of floating-point and 32-bit pictures, which need it: what is black, and what is white."
    )
    exif: Literal["apply", "ignore"] = key(
        "apply", "Whether EXIF turns pictures; ignore takes pixels as stored, as some annotations mean them."
    )

    @model_validator(mode="after")
    def _a_fold_is_one_of_them(self) -> "DataConfig":
        if self.fold >= (self.folds or 1):
            folds = "unset" if self.folds is None else self.folds
            raise ValueError(
                f"data.fold is {self.fold} and data.folds {folds}: expected one of 0 to folds - 1"
            )
        if self.groups is not None and not self.groups.lower().endswith(".csv"):
            try:
                re.compile(self.groups)
            except re.error as error:
                raise ValueError(
                    f"data.groups is {self.groups!r}: expected a regular expression or a .csv file, got one that "
                    f"doesn't compile ({error})"
                ) from None
        return self

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
    horizontal_flip: Rate = key(0.5, "How likely a picture is mirrored.")
    crop_scale: Range | None = key(
        (0.08, 1.0),
        "Random resized crop: from which to which share of the picture's area. null: plain resize.",
    )
    crop_ratio: Range = key((0.75, 4 / 3), "Its width over its height, from and to.")
    affine_degrees: Amount = key(0.0, "Turned by at most so much either way.", unit="degrees")
    affine_translate: Rate = key(0.0, "Moved by at most this share of a side.")
    affine_scale: Range | None = key(None, "Scaled by a factor from and to.")
    randaugment: str | None = key(
        "rand-m9-mstd0.5-inc1", "RandAugment or AutoAugment, in timm's notation. null: neither."
    )
    color_jitter: Amount | None = key(
        0.4, "How far brightness, contrast and saturation change, where randaugment is null."
    )
    erasing: Rate = key(0.25, "How likely a rectangle is erased.")
    erasing_mode: Literal["pixel", "rand", "const"] = key(
        "pixel", "What it is filled with: noise, one random colour, or the mean."
    )
    mixup: Amount = key(
        0.8,
        "The alpha of mixup's Beta distribution, of pictures with boxes too. 0: no mixup.",
    )
    cutmix: Amount = key(1.0, "The alpha of CutMix's Beta distribution. 0: no CutMix.")
    mixup_prob: Rate = key(1.0, "How likely a batch (a picture with boxes) is mixed, by one of the two.")
    mixup_switch_prob: Rate = key(0.5, "How likely it is CutMix, where both are on.")
    scale_range: Range | None = key(
        None, "Of pictures with maps or boxes: random sizes, as factors of the evaluation's, from and to."
    )
    crop_most: Share = key(1.0, "Of pictures with maps: the share of a crop that one class may have.")
    photometric: Rate = key(
        0.0,
        "Of pictures with maps or boxes: how likely each of brightness, contrast, saturation and hue changes.",
    )
    vertical_flip: Rate = key(0.0, "Of pictures with maps or boxes: how likely one is turned upside down.")
    quarter_turns: Rate = key(
        0.0, "Of pictures with maps or boxes: how likely one is turned by 90, 180 or 270 degrees."
    )
    mosaic: Rate = key(
        0.0, "Of pictures with maps or boxes: how likely one is put together with pieces of three others."
    )
    copy_paste: Rate = key(
        0.0,
        "Of pictures with maps or masks: how likely half of the objects (of maps: of the classes) of another are "
        "pasted onto one.",
    )
    iou_crop: Rate = key(
        0.0,
        "Of pictures with boxes: how likely a piece is taken that overlaps with some object as much as is drawn (SSD).",
    )
    crop_chance: Rate = key(
        0.0,
        "Of pictures with boxes: how likely a random piece is taken, each side half of the picture's or more.",
    )
    short_sides: list[Positive] | None = key(
        None,
        "Of pictures with boxes: the shorter side, one of these at random, in place of data.eval_resize.",
        unit="pixels",
    )
    jitter_range: Range | None = key(
        None,
        "Of pictures with boxes: large-scale jitter, factors of data.image_size (from and to), to which it is cut or "
        "padded.",
    )


class TaskConfig(Section):
    """What is learned and what selects a checkpoint; which task knows which key stands beside it."""

    name: str = key(
        "classify", "What is learned: classify, multilabel, regress, segment, detect, or a package's."
    )
    select_by: str | None = key(
        None, "The metric that selects a checkpoint: loss, balanced_accuracy, miou ... Unset: the task's own."
    )
    metrics: list[str] = key(
        [], "Metrics that are computed and told besides the task's own, such as a package's."
    )
    label_smoothing: Rate = key(
        0.1, "classify, multilabel, segment: share of the target that goes to all classes."
    )
    class_weights: Literal["balanced"] | list[Weight] | dict[str, Weight] | None = key(
        None,
        "classify, segment, detect: weights of classes (of pixels, of objects) by name, 1 for the others; for classify "
        "also a list, one a class, or balanced.",
    )
    focal_gamma: Weight | None = key(
        None,
        "classify, segment: the gamma of focal loss, in which images (pixels) that are well known weigh little. Unset: "
        "cross entropy.",
    )
    region_loss: Literal["dice", "tversky", "lovasz"] | None = key(
        None, "segment: a loss of whole segments, picture by picture, added to that of pixels. Unset: none."
    )
    region_weight: Weight = key(1.0, "segment: of region_loss, where that of pixels has 1.")
    tversky_alpha: Rate = key(
        0.3, "segment: of Tversky's loss, what pixels said wrongly weigh; missed ones weigh the rest of 1."
    )
    auxiliary_weight: Weight = key(0.4, "segment: of an auxiliary head's loss.")
    window: Positive | None = key(
        None,
        "segment, detect: side of the overlapping windows in which larger pictures are evaluated. Unset: whole.",
        unit="pixels",
    )
    window_scale: Weight = key(
        1.0, "segment, detect: a picture that is cut into windows is resized by this factor first."
    )
    temperature: Weight = key(
        1.0,
        "classify: what logits are divided by wherever the model is used; above 1 it is less sure. `crosshead judge` "
        "chooses it on validation pictures; training knows none.",
    )
    threshold: Rate | None = key(
        None,
        "classify, two classes: the probability of the second from which on it is said. Unset: the likelier one is.",
    )
    score_threshold: Rate | dict[str, Rate] = key(
        0.3,
        "detect: the lowest score that predict tells and draws, one for all or by class name (0.3 for others); judged "
        "is all that the model finds.",
    )
    tta: list[Literal["flip", "scales"]] = key(
        [],
        "classify, segment, detect: test-time augmentation, several views of each picture whose answers are put "
        "together: mirrored, and three sizes. Costs as many times the time of one view, and more for larger ones.",
    )
    suppression: Literal["nms", "soft_nms", "weighted"] = key(
        "nms",
        "detect: of findings of a class that overlap: the best stays; all stay with lower scores; or their weighted "
        "mean (boxes alone).",
    )
    classes: list[str] | None = key(
        None, "detect: the classes that predict tells and draws, by name. Unset: all."
    )
    max_detections: Positive = key(
        100, "detect: objects of a class in a picture that are judged, the best first.", unit="objects"
    )


class OptimizerConfig(Section):
    name: str = key("adamw", "By timm's name: adamw, sgd, lamb, lion ...")
    lr: Weight = key(5e-4, "The learning rate at its highest.")
    lr_batch_size: Positive | None = key(
        None,
        "The total batch size that lr is for: with another one lr is scaled linearly. Unset: lr is taken as it is.",
        unit="pictures",
    )
    betas: tuple[Moment, Moment] = key(
        (0.9, 0.999),
        "How slowly the means of gradients and of their squares move; the first is SGD's momentum.",
    )
    eps: Amount = key(1e-8, "Added to the root of the squares' mean.")
    weight_decay: Amount = key(0.05, "Of all weights but biases, norms and what a model spares.")
    clip_grad: Weight | None = key(
        5.0, "The largest norm of a step's gradients; larger ones are scaled. null: any."
    )
    layer_decay: Share | None = key(
        None,
        "The rate of each block over that of the one above it; for models that know something. Unset: all alike.",
    )
    head_lr: Weight | None = key(
        None, "The classifier's own rate, at its highest, on lr's course. Unset: lr."
    )


class ScheduleConfig(Section):
    """After a linear warm-up from ``warmup_lr`` to ``optimizer.lr``, step by step: ``cosine`` or ``poly`` (a power of
    the share that is left) down to ``min_lr``, ``step`` (times ``gamma`` at the ``milestones``), or ``constant``."""

    name: Literal["cosine", "poly", "step", "constant"] = key(
        "cosine", "The course of the rate after the warm-up."
    )
    warmup_epochs: Amount = key(20.0, "Length of the linear warm-up.", unit="epochs")
    warmup_steps: Count | None = key(None, "The same in steps, in place of warmup_epochs.", unit="steps")
    power: Weight = key(0.9, "poly: of the share of training that is left.")
    milestones: list[Weight] = key(
        [], "step: where the rate falls, from the start, ascending.", unit="epochs"
    )
    gamma: Share = key(0.1, "step: what the rate is multiplied by there.")
    warmup_lr: Amount = key(5e-7, "The rate where the warm-up starts.")
    min_lr: Amount = key(5e-6, "cosine, poly: the rate at the end.")


class TeacherConfig(Section):
    """A trained classifier of the same classes that a run learns from beside its labels: a run, or weights in a file.
    Nothing is fetched for it."""

    run: str | None = key(None, "A run's folder, whose best weights teach.")
    weights: str | None = key(
        None, "In place of a run: a folder that crosshead.save wrote, or with `model` a file of its weights."
    )
    model: str | None = key(None, "The model that `weights` are of, by its name in timm's registry.")
    temperature: Weight = key(2.0, "What both logits are divided by, so that unlikely classes count.")
    weight: Share = key(0.5, "Of the teacher's part in the loss; the labels' part weighs the rest of 1.")

    @model_validator(mode="after")
    def _one_teacher(self) -> "TeacherConfig":
        if (self.run is None) == (self.weights is None) or (self.model is not None and self.weights is None):
            raise ValueError(
                "train.teacher: expected run (a run's folder), or weights (a folder of crosshead.save, or with model a "
                f"file), got run {self.run!r}, weights {self.weights!r} and model {self.model!r}"
            )
        return self


class TrainConfig(Section):
    epochs: Positive = key(100, "The run's length.", unit="epochs")
    steps: Positive | None = key(
        None, "The run's length in optimizer steps, in place of epochs.", unit="steps"
    )
    seed: Count = key(0, "Of initial weights, order, augmentation and all else that is random.")
    paired_init: bool = key(
        False, "Initial tensors drawn by (seed, name), so that unlike models start as alike as can be."
    )
    accumulation_steps: Positive = key(1, "Batches whose gradients make one step.", unit="batches")
    device: str = key("auto", "auto (the best one there is), cpu, cuda, cuda:1 or mps.")
    precision: Literal["fp32", "bf16", "fp16"] = key("fp32", "Of the forward pass, under autocast.")
    channels_last: bool = key(False, "Whether images lie in memory with their channels last.")
    compile: bool = key(False, "Whether the model goes through torch.compile.")
    grad_checkpointing: bool = key(
        False, "Whether blocks are computed again in the backward pass, which saves memory and costs time."
    )
    parallel: Literal["copies", "shards"] = key(
        "copies", "Of the model in several processes: a copy in each (DDP), or a part (FSDP2)."
    )
    deterministic: bool = key(False, "Whether only algorithms are used that give the same bits each time.")
    teacher: TeacherConfig | None = key(
        None, "classify: a trained classifier to learn from beside the labels. Unset: the labels alone."
    )
    freeze: list[str] = key([], "Parameters to leave as they are, by name: patch_embed.*, blocks.[0-5].* ...")
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = key(
        None, "Of the moving average of the weights, which is then what is evaluated. Unset: none is kept."
    )
    eval_every_epochs: Positive = key(1, "How often the validation split is evaluated.", unit="epochs")
    patience: Positive | None = key(
        None,
        "Evaluations in a row without a better one after which training ends. Unset: it never does.",
        unit="evaluations",
    )
    max_bad_steps: Positive = key(
        10, "Non-finite losses or gradients in a row before the run stops.", unit="steps"
    )
    rank_timeout_s: Positive = key(
        600, "How long a process may be waited for before the run ends.", unit="seconds"
    )


class CheckpointConfig(Section):
    """``last`` is written at the end of every epoch and, if set, every so many steps or minutes."""

    every_steps: Positive | None = key(
        None, "How often one is written besides. Unset: at epochs' ends.", unit="steps"
    )
    every_minutes: Weight | None = key(None, "The same by the clock.", unit="minutes")
    keep_last: Positive = key(2, "How many of the newest are kept, beside the best.", unit="checkpoints")


class LogConfig(Section):
    every_steps: Positive = key(20, "How often a step is logged.", unit="steps")
    tensorboard: bool = key(True, "Whether the run's folder gets a log for TensorBoard.")
    progress: Literal["auto", "bar", "lines"] = key(
        "auto", "What the screen shows: a bar, or lines; auto: a bar on a terminal."
    )
    callbacks: list[str] = key(
        [], "Who is told besides the logs on disk: wandb, mlflow, or one that a package offers."
    )
    forecast: bool = key(False, "Whether it is said before training how long it will take, from a few steps.")

    @model_validator(mode="before")
    @classmethod
    def _of_version_0_1(cls, data: Any) -> Any:
        """Recipes of 0.1 say ``observers``, and runs of it hold that key always."""
        if not isinstance(data, dict) or "observers" not in data:
            return data
        if data.get("callbacks"):
            raise ValueError("log.observers is the old name of log.callbacks; give the latter alone")
        return {"callbacks" if key == "observers" else key: value for key, value in data.items()}


class Recipe(Section):
    """One run, whole. A recipe's file may also say ``base``; see ``crosshead.recipe.compose``."""

    name: str = key("run", "The run's name, and its folder's in output. A file's own name when unset there.")
    notes: str | None = key(None, "Anything that a reader should know; nothing reads it.")
    output: str = key("runs", "The folder in which runs' folders are made.")
    model: ModelConfig = key(ModelConfig(), "The model.")
    data: DataConfig = key(DataConfig(), "The pictures, and how they are read.")
    augment: AugmentConfig = key(AugmentConfig(), "What is done to training pictures.")
    task: TaskConfig = key(TaskConfig(), "What is learned, and what selects a checkpoint.")
    optimizer: OptimizerConfig = key(OptimizerConfig(), "The optimizer.")
    schedule: ScheduleConfig = key(ScheduleConfig(), "The course of the learning rate.")
    train: TrainConfig = key(TrainConfig(), "How training goes.")
    checkpoint: CheckpointConfig = key(CheckpointConfig(), "When checkpoints are written.")
    log: LogConfig = key(LogConfig(), "What is told of a run.")

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
                f"schedule.milestones is {milestones} and schedule.name {schedule.name}: expected step with "
                "the epochs, ascending, at which the rate falls, or another schedule without"
            )
        return self
