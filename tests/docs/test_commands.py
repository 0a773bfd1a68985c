"""`make docs-test`: the commands of a page run one after another, as someone does who follows it.

Trained shortly: each `train` and `sweep` gets keys that make it a matter of seconds. Places of others are made up: a
folder of pictures, a picture, and weights. Pages about machines or data that are not here are only checked by `make
test` (tests/test_documents.py).
"""

import re

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from crosshead.cli import main
from doc_blocks import ROOT, blocks

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

SHORT = ["train.steps=4", "schedule.warmup_epochs=0", "log.forecast=false", "train.device=cpu"]
SHORT_OF = {
    "image_folder": ["data.image_size=32", "model.args.depth=1"],
    "finetune": ["data.image_size=32", "model.args.depth=2"],
}
PAGES = ("start.md", "which_interaction.md", "own_pictures.md", "finetune.md", "resuming.md")
ELSEWHERE = re.compile(r"data\.name=csv|/data/more|holiday")  # data that are not made up here


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """``pets`` (a folder a class), ``picture.png`` and ``weights.safetensors``."""
    folder = tmp_path_factory.mktemp("made")
    digits = load_digits()
    for number, (pixels, target) in enumerate(zip(digits.images[:160], digits.target[:160] % 2, strict=True)):
        file = folder / "pets" / ("cat", "dog")[target] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype("uint8")).convert("RGB").resize((48, 48)).save(file)
    Image.fromarray((digits.images[0] * 15).astype("uint8")).save(folder / "picture.png")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2)
    save_file(model.state_dict(), folder / "weights.safetensors")
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture.png").write_bytes((made / "picture.png").read_bytes())
    ran = 0
    for block in blocks():
        if block.document == ROOT / "docs" / page and not block.reason:
            for words in block.commands:
                ran += _run(words, made)
    assert ran


def _run(words, made):
    text = " ".join(words)
    if words[0] != "crosshead" or ELSEWHERE.search(text):
        return 0
    words = [
        word.replace("/data/pets-shards", "packed").replace("/data/pets", str(made / "pets"))
        for word in words
    ]
    words = [
        word.replace("model.args.pretrained=true", "model.init_from=weights.safetensors") for word in words
    ]
    words = [word.replace("weights.safetensors", str(made / "weights.safetensors")) for word in words]
    if words[1] in ("train", "sweep") and "--resume" not in words:
        words = [*words, *SHORT, *SHORT_OF.get(words[2], [])]
    words = [word for word in words if not word.startswith(("train.epochs=", "model.name="))]
    assert main(words[1:]) == 0, text
    return 1
