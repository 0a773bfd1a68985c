"""The recipes of the MOHSA paper: five models on four data sets, and what section 4 says of each."""

import itertools

import pytest

from crosshead.data.datasets.registry import dataset_names
from crosshead.models import build_model
from crosshead.recipe import load_recipe

MODELS = {
    "vit/vit_tiny_16_224": "mohsa_vit_tiny_patch16_224",
    "vit/vit_small_16_224": "mohsa_vit_small_patch16_224",
    "cait/cait_xxs12_16_224": "mohsa_cait_xxs12_224",
    "cait/cait_xxs24_16_224": "mohsa_cait_xxs24_224",
    "swin/swin_tiny_patch4_window7_224": "mohsa_swin_tiny_patch4_window7_224",
}
DATA = {
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "tiny_imagenet": "tiny-imagenet",
    "imagenet": "imagenet",
}


@pytest.mark.parametrize(("model", "data"), list(itertools.product(MODELS, DATA)))
def test_a_recipe_says_what_the_paper_says(model, data):
    recipe = load_recipe(f"configs/{model}_{data}.yaml")
    swin = "swin" in model
    assert recipe.model.name == MODELS[model] and recipe.model.overlap == "index"
    assert recipe.model.drop_path_rate == (0.2 if swin else 0.0)
    assert recipe.data.name == DATA[data] and recipe.data.name in dataset_names()
    assert (recipe.data.image_size, recipe.data.eval_resize, recipe.data.interpolation) == (
        224,
        256,
        "bicubic",
    )
    assert recipe.data.batch_size == 128 and recipe.optimizer.lr_batch_size is None
    assert recipe.train.epochs == (300 if data == "imagenet" else 100)
    schedule = recipe.schedule
    assert (schedule.name, schedule.warmup_epochs) == ("cosine", 20)
    assert (recipe.optimizer.lr, schedule.min_lr, schedule.warmup_lr) == (
        (2.5e-4, 2.5e-6, 2.5e-7) if swin else (5e-4, 5e-6, 5e-7)
    )
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.betas, optimizer.weight_decay) == ("adamw", (0.9, 0.999), 0.05)
    assert optimizer.clip_grad == 5.0 and recipe.train.precision in ("bf16", "fp16")
    augment = recipe.augment
    assert (augment.randaugment, augment.color_jitter) == ("rand-m9-mstd0.5-inc1", 0.4)
    assert (augment.erasing, augment.erasing_mode) == (0.25, "pixel")
    assert (augment.mixup, augment.cutmix, augment.mixup_switch_prob) == (0.8, 1.0, 0.5)
    assert recipe.task.label_smoothing == 0.1


@pytest.mark.parametrize("model", MODELS)
def test_the_models_of_the_recipes_can_be_built(model):
    import torch

    recipe = load_recipe(f"configs/{model}_cifar10.yaml")
    with torch.device("meta"):
        built = build_model(recipe.model, num_classes=10, in_chans=3, img_size=recipe.data.image_size)
    assert built.num_classes == 10
