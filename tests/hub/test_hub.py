"""Models to the hub and back, against a stand-in on the loopback address: the same to the last bit."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import yaml

import crosshead
from crosshead import swap_attention
from crosshead.cli import main
from crosshead.hub import push_to_hub, write_repository
from crosshead.swap import interactions_of
from crosshead.train.events import Result
from hub.stand_in import standing_in

RUN = Path(__file__).parents[1] / "train" / "run_of_0_1"
SMALL = dict(img_size=32, depth=2, embed_dim=24, num_heads=3, patch_size=8, num_classes=3)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The stand-in, which huggingface_hub and timm take for the hub, with a cache of its own."""
    with standing_in() as (served, address):
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield served


def images(channels=3, side=32):
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


def swapped():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", act_layer="relu", **SMALL).eval()
    swap_attention(model, "talking", init="paper", overlap=2)
    return model


def registered():
    torch.manual_seed(0)
    return timm.create_model("mohsa_vit_micro_patch4_32", overlap="reversed", depth=2, num_classes=3).eval()


@pytest.mark.parametrize("make", [swapped, registered])
def test_a_model_comes_back_from_the_hub(make, hub):
    model = make()
    address = push_to_hub(
        model, "me/mine", args=SMALL if make is swapped else None, classes=["a", "b", "c"], private=True
    )
    assert address.endswith(f"/me/mine/commit/{hub.commit_of('me/mine')}") and hub.private["me/mine"]
    assert sorted(hub.repositories["me/mine"]) == ["README.md", "config.json", "model.safetensors"]
    back = crosshead.load("hf-hub:me/mine")
    assert torch.equal(back(images()), model(images())) and interactions_of(back) == interactions_of(model)
    assert list(back.pretrained_cfg["label_names"]) == ["a", "b", "c"]
    timms = timm.create_model("hf-hub:me/mine", pretrained=True).eval()
    assert torch.equal(timms(images()), model(images()))
    assert torch.equal(
        crosshead.load(f"hf-hub:me/mine@{hub.commit_of('me/mine')}")(images()), model(images())
    )


def test_what_a_file_names_is_not_followed(hub, tmp_path):
    """A hub is asked for by its user's words alone: here by a folder, then by a repository that names another."""
    push_to_hub(registered(), "someone/bait")
    crosshead.save(registered(), tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    for change in (
        {"architecture": "hf-hub:someone/bait"},
        {
            "architecture": "crosshead_swapped",
            "model_args": {"name": "hf-hub:someone/bait", "interactions": []},
        },
    ):
        (tmp_path / "m" / "config.json").write_text(json.dumps(config | change))
        hub.repositories["me/trap"] = {each.name: each.read_bytes() for each in (tmp_path / "m").iterdir()}
        hub.asked.clear()
        with pytest.raises(ValueError, match="can't be built: Unknown model"):
            crosshead.load(tmp_path / "m")
        assert not hub.asked
        with pytest.raises(ValueError, match="can't be built: Unknown model"):
            crosshead.load("hf-hub:me/trap")
        assert hub.asked and not any("bait" in path for _, path in hub.asked)
    source = {"hf_hub_id": "someone/bait", "url": "http://127.0.0.1:9/x.pth", "custom_load": True}
    config["pretrained_cfg"] |= source
    config["model_args"] |= {"pretrained": True, "pretrained_cfg": source}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    hub.asked.clear()
    assert torch.equal(crosshead.load(tmp_path / "m")(images()), registered()(images())) and not hub.asked


def run_folder(place, seed=0, accuracy=0.5, **changes):
    """A finished run of digits: its weights are those that another version left, its figures made for the test."""
    shutil.copytree(RUN, place, symlinks=True)
    recipe = yaml.safe_load((place / "recipe.yaml").read_text())
    recipe["train"]["seed"], recipe["data"]["root"] = seed, "/home/someone/digits"
    recipe["data"]["split_seed"] = 0
    recipe["output"], recipe["notes"] = "/home/someone/runs", "a secret"
    (place / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    values = {"accuracy": accuracy, "loss": 1.5, "count": 300.0}
    rows = [{"class": str(i), "images": 36, "recall": i / 10} for i in range(10)]
    found = dict(
        status="finished", folder=place, step=2, epoch=1.0, selected_step=2, weights=None,
        validation=values, test=values,
        parameters=1000, gmacs=0.01, images_per_second=100.0, seconds=90.0, bad_steps=0, broken_images=0,
        details={"split": "test", "classes": rows},
    ) | changes  # fmt: skip
    (place / "result.json").write_text(Result(**found).to_json())
    return place


def test_a_run_goes_with_a_card_of_what_it_knows(hub, tmp_path, capsys):
    run = run_folder(tmp_path / "runs" / "seed-0", seed=0, accuracy=0.5)
    run_folder(tmp_path / "runs" / "seed-1", seed=1, accuracy=0.6)
    (run / "events.jsonl").write_text(
        '{"kind": "start", "device": "cpu", "precision": "fp32", "processes": 1, "train_images": 1000}\n'
    )
    assert main(["push", str(run), "me/digits"]) == 0
    assert 'crosshead.load("hf-hub:me/digits")' in capsys.readouterr().out
    back, own = crosshead.load("hf-hub:me/digits"), crosshead.load(run)
    x = images(1, 8)
    assert torch.equal(back(x), own(x)) and list(back.pretrained_cfg["mean"]) == list(
        own.pretrained_cfg["mean"]
    )
    text = hub.repositories["me/digits"]["README.md"].decode()
    for said in (
        "trained on digits", "1,000 for training", "| test | 300 | 50.00% |", "with 2 seeds",
        "55.00% ± 7.07%, from 50.00% to 60.00%",
        "1.5 minutes", "1 x cpu, fp32", 'crosshead.load("hf-hub:me/digits")',
        "0 (0% of 36), 1 (10% of 36), 2 (20% of 36)",
        "train:\n", "seed: 0",
    ):  # fmt: skip
        assert said in text, said
    assert "secret" not in text and "/home" not in text
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["pipeline_tag"] == "image-classification" and "crosshead" in head["tags"]
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5


def test_one_seed_and_other_weights_say_so(tmp_path):
    run = run_folder(tmp_path / "run", selected_step=1, test={})
    text = (write_repository(run, tmp_path / "out", "me/digits") / "README.md").read_text()
    assert (
        "One seed: how far another one would be" in text
        and "figures are of step 1, and the weights here of step 2" in text
    )
    assert "no test pictures" in text and "model-index" not in text
    (run / "result.json").unlink()
    text = (write_repository(run, tmp_path / "out", "me/digits") / "README.md").read_text()
    assert "The run is not finished: nothing has been judged" in text


def test_a_card_that_someone_wrote_stays(hub):
    push_to_hub(registered(), "me/mine")
    assert b"written by crosshead" in hub.repositories["me/mine"]["README.md"]
    hub.repositories["me/mine"]["README.md"] = b"# by hand"
    push_to_hub(registered(), "me/mine", message="again")
    assert hub.repositories["me/mine"]["README.md"] == b"# by hand"


def test_what_the_hub_refuses_is_one_sentence(hub, tmp_path, capsys, monkeypatch):
    for word, said in {
        "hf-hub:me/none": "is not on the hub, or is private",
        "hf-hub:mine": "expected owner/name",
        "hf-hub:me/mine@v9": "no revision 'v9'",
        "hf-hub:me/empty": "has no config.json and no model.safetensors",
    }.items():
        hub.repositories |= {"me/mine": {}, "me/empty": {"README.md": b""}}
        with pytest.raises(ValueError, match=said):
            crosshead.load(word)
    hub.refuses_writing = True
    crosshead.save(registered(), tmp_path / "m")
    assert main(["push", str(tmp_path / "m"), "me/mine"]) == 2
    assert "refuses me/mine (403): `hf auth login`" in capsys.readouterr().err
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="can't be reached"):
        crosshead.load("hf-hub:me/other")


def test_a_folder_to_look_at_first(tmp_path, capsys):
    crosshead.save(registered(), tmp_path / "m")
    assert main(["push", str(tmp_path / "m"), "me/mine", "--folder", str(tmp_path / "look")]) == 0
    assert "README.md" in capsys.readouterr().out
    assert torch.equal(crosshead.load(tmp_path / "look")(images()), registered()(images()))
    assert "not recorded here" in (tmp_path / "look" / "README.md").read_text()
