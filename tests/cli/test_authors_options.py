"""The MOHSA authors' command line: their words set the keys that they are to set."""

import re
import shutil
from pathlib import Path

import pytest

from crosshead.cli import main
from crosshead.cli.arguments.authors import KEYS
from crosshead.cli.arguments.parser import parse
from crosshead.cli.commands.train import plan
from crosshead.recipe.check import check_key

CFG = ["--cfg", "configs/vit/vit_tiny_16_224_imagenet.yaml"]


def planned(*words):
    return plan(parse(["train", *CFG, *words]))


def test_their_arguments_set_our_keys():
    recipe, folder = planned(
        *("--data-path", "/data/imagenet", "--batch-size", "64", "--accumulation-steps", "2"),
        *("--use-checkpoint", "--disable_amp", "--output", "out", "--tag", "first", "--pretrained", "a.pth"),
    )
    assert recipe.name == "vit_tiny_16_224_imagenet"
    assert (recipe.data.root, recipe.data.batch_size) == ("/data/imagenet", 64)
    assert (recipe.train.accumulation_steps, recipe.train.grad_checkpointing) == (2, True)
    assert recipe.train.precision == "fp32" and recipe.model.init_from == "a.pth"
    assert folder == Path("out/vit_tiny_16_224_imagenet/first")


def test_left_alone_they_change_nothing():
    recipe, folder = planned()
    assert recipe.train.precision == "bf16" and not recipe.train.grad_checkpointing and folder is None
    assert (recipe.data.batch_size, recipe.train.accumulation_steps) == (128, 1)


def test_opts_take_their_keys_and_ours_and_arguments_win():
    opts = [
        "--opts",
        "TRAIN.EPOCHS",
        "30",
        "AUG.AUTO_AUGMENT",
        "none",
        "DATA.BATCH_SIZE",
        "8",
        "model.overlap",
        "index/2",
    ]
    recipe, _ = planned("--batch-size", "16", *opts)
    assert recipe.train.epochs == 30 and recipe.augment.randaugment is None
    assert recipe.data.batch_size == 16 and recipe.model.overlap == "index/2"


def test_their_keys_all_lead_to_keys_of_a_recipe():
    for key in KEYS.values():
        check_key(key, "here")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--opts", "TRAIN.EPOCHS"), "expected pairs KEY VALUE, got 1 words"),
        (("--opts", "TRAIN.MOE.SAVE_MASTER", "true"), "TRAIN.MOE.SAVE_MASTER has no counterpart here"),
        (("--opts", "train.epoch", "3"), "the nearest one is 'train.epochs'"),
        (("--batch-size", "0"), "data.batch_size: expected a whole number above 0 (pictures), got 0"),
        (("--cfg", "configs/nothing.yaml"), "no recipe file configs/nothing.yaml"),
    ],
)
def test_a_mistake_is_one_clean_line(words, message, fails):
    assert message in fails("train", *CFG, *words)


def test_throughput_says_what_was_measured(capsys):
    small = ["data.batch_size=2", "train.device=cpu"]
    assert main(["train", "digits_mohsa", *small, "--throughput"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"mohsa_vit_micro_patch2_32: [\d,.]+ images/s forward, median of 30", said)
    assert "batch 2, 8 x 8 pixels, fp32, cpu" in said


def test_eval_evaluates_the_run(run, capsys):
    capsys.readouterr()
    assert main(["train", "--cfg", str(run / "recipe.yaml"), "--eval", "--resume", str(run)]) == 0
    assert capsys.readouterr().out.startswith("test: accuracy ")


def test_eval_evaluates_a_checkpoint_or_a_file_of_weights(run, tmp_path, capsys, fails):
    recipe = ["--cfg", str(run / "recipe.yaml"), "--eval", "--resume"]
    step = sorted((run / "checkpoints").glob("step-*"))[0]
    capsys.readouterr()
    assert main(["train", *recipe, str(step)]) == 0
    of_step = capsys.readouterr().out
    assert f"{int(step.name[5:])} weights of {run})" in of_step

    weights = next(step.glob("*.safetensors"))
    average = step / "ema.safetensors"
    outside = Path(shutil.copy(average if average.exists() else weights, tmp_path / "mine.safetensors"))
    assert main(["train", *recipe, str(outside)]) == 0
    of_file = capsys.readouterr().out
    assert of_file.split(" (")[0] == of_step.split(" (")[0] and str(outside) in of_file
    assert "holds the weights of another model" in fails("train", "digits", "--eval", "--resume", outside)
    assert "--resume" in fails("train", "digits", "--eval")
    refused = fails("train", *recipe[:2], "--resume", outside)
    assert "names a file of weights, and only a run can be gone on with" in refused
    assert f"model.init_from={outside}" in refused


def test_the_page_for_their_users_lists_every_key():
    page = (Path(__file__).parents[2] / "docs" / "from_the_authors_code.md").read_text()
    for theirs, ours in KEYS.items():
        assert f"| `{theirs}` | `{ours}` |" in page


def test_eval_of_a_run_obeys_the_recipe_and_the_overrides_beside_it(run, capsys, fails, tmp_path):
    words = ["train", "--eval", "--resume", str(run)]
    assert "no shards of train" in fails(*words, "data.name=shards", f"data.root={tmp_path}")
    assert main(words) == 0
    plain = capsys.readouterr().out
    assert main([*words, "data.mean=[0.9]"]) == 0
    assert capsys.readouterr().out != plain, "pictures are normalised as the override says"
    assert "does not fit this model" in fails("train", "digits_mohsa", *words[1:], "model.overlap=constant:0")
