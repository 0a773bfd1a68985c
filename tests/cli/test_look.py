"""The commands that look and train nothing: recipes, models, schedules, data."""

import json

from PIL import Image

from crosshead.cli import main
from crosshead.recipe import load_recipe, shipped_recipes

RENDERED = True  # pictures are looked at


def said(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_recipes_are_listed_with_a_line_each(capsys):
    lines = said(capsys, "recipes").splitlines()
    assert {line.split()[0] for line in lines} == set(shipped_recipes())
    assert all(len(line.split()) > 3 for line in lines)


def test_a_recipe_is_shown_whole_and_usable(capsys, tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text(said(capsys, "recipes", "digits_mohsa", "train.epochs=77"))
    assert load_recipe(path) == load_recipe("digits_mohsa", ["train.epochs=77"])


def test_models_are_listed_with_their_parameters(capsys):
    models = json.loads(said(capsys, "models", "--filter", "*_vit_tiny*", "--json"))
    assert [model["model"] for model in models] == [
        "mohsa_vit_tiny_patch16_224",
        "plain_vit_tiny_patch16_224",
    ]
    # Under the index schedule the projections grow by 2 * heads * (0 + 1 + ... + 11) rows of the model's width.
    grown = 2 * 12 * sum(range(12)) * 192
    assert models[0]["parameters"] - models[1]["parameters"] == grown
    assert (models[1]["widths"], models[1]["blocks"], models[1]["heads"]) == ([192], [12], [12])


def test_all_models_are_listed_and_built_by_their_names_alone(capsys):
    lines = said(capsys, "models").splitlines()
    listed = {line.split()[0] for line in lines[1:-1]}
    assert {"ivit_tiny", "mohsa_vit_tiny_patch16_224"} < listed
    assert all(name.startswith(("mohsa_", "plain_", "ivit_")) for name in listed)


def test_models_that_are_not_there(fails):
    assert "no model is like 'xyz*'; expected one of" in fails("models", "--filter", "xyz*")


def test_schedules_are_printed_block_by_block(capsys):
    lines = said(
        capsys, "schedules", "index/2+1", "constant:2", "--depth", "6", "--head-width", "8"
    ).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["index/2+1", "1", "1", "2", "2", "3", "3"],
        ["constant:2", "2", "2", "2", "2", "2", "2"],
    ]
    assert len(said(capsys, "schedules").splitlines()) == 11


def test_schedules_that_do_not_fit(fails):
    assert "did you mean 'index'" in fails("schedules", "indx")
    assert "block 9" in fails("schedules", "index", "--head-width", "8")
    assert "--depth: expected at least 1, got 0" in fails("schedules", "--depth", "0")


def test_data_sets_are_listed(capsys):
    names = [line.split()[0] for line in said(capsys, "data", "list").splitlines()]
    assert {"digits", "fashion-mnist", "folder"} <= set(names)


def test_data_check_counts_the_classes(capsys):
    report = json.loads(said(capsys, "data", "check", "digits", "--json"))
    assert {split: part["total"] for split, part in report["splits"].items()} == {
        "train": 1295,
        "validation": 143,
        "test": 359,
    }
    test = report["splits"]["test"]
    assert sum(test["classes"].values()) == 359 and test["sizes"] == {"8x8": 359} and test["grey"] == 359
    assert test["from"] == "the data set digits"


def test_data_check_names_the_broken_images(capsys, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    broken = tmp_path / "dog" / "5.png"
    broken.write_bytes(b"")
    capsys.readouterr()
    assert main(["data", "check", "folder", "--data-path", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert f"broken: {broken}: empty (zero bytes)" in captured.err
    rows = [line.split() for line in captured.out.splitlines()]
    assert sum(map(int, next(row for row in rows if row[0] == "readable")[1:])) == 19
    assert sum(map(int, next(row for row in rows if row[0] == "broken")[1:])) == 1


def test_data_stats_says_what_a_recipe_should_know(capsys, tmp_path):
    for split, count in (("train", 6), ("valid", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count + (name == "cat") * count):
                Image.new("RGB", (8, 8 + i), (i, 0, 51)).save(tmp_path / split / name / f"{i}.png")
    (tmp_path / "train" / "dog" / "a.heic").write_bytes(b"heic")
    assert main(["data", "stats", "folder", "--data-path", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert f"validation: 6 images, from {tmp_path / 'valid'}" in said.out
    assert "balance: most cat (12), fewest dog (6), 2.0 to 1; always saying cat is right in 66.7%" in said.out
    assert "8 x 8 pixels, from 8 to 8 wide and 8 to 19 high" in said.out
    assert "mean [0.018, 0.000, 0.200], standard deviation [0.013, 0.000, 0.000]" in said.out
    assert "1 files (.heic) are passed over" in said.err and "HEIC, which needs" in said.err
    assert f"the same image lies in train: {tmp_path}/train/cat/0.png and in" in said.err
    assert "images that another one of their own split equals: 6 in train, 2 in validation" in said.err


def test_data_check_needs_something_to_check(fails, tmp_path):
    assert "`crosshead data list` names the data sets" in fails("data", "check")
    assert "no data set and no recipe is called 'cifar'; the data sets are ade20k" in fails(
        "data", "check", "cifar"
    )
    assert str(tmp_path / "none") in fails("data", "check", "folder", "--data-path", tmp_path / "none")


def test_data_pack_makes_shards_that_hold_the_same_pictures(capsys, tmp_path, fails):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "pets" / name / f"{i}.png")
    words = [
        "data",
        "pack",
        "folder",
        "--data-path",
        str(tmp_path / "pets"),
        "--out",
        str(tmp_path / "shards"),
    ]
    assert "train: 18 images in 1 shards" in said(capsys, *words)
    report = json.loads(said(capsys, "data", "check", "shards", "--data-path", tmp_path / "shards", "--json"))
    assert {split: part["total"] for split, part in report["splits"].items()} == {
        "train": 18,
        "validation": 2,
    }
    assert "choose an empty folder" in fails(*words)
    assert "held in memory" in fails("data", "pack", "digits", "--out", tmp_path / "other")
    assert "--shard-megabytes: expected more than 0" in fails(*words, "--shard-megabytes", "0")


def test_a_table_in_a_pipe_is_not_cut(capsys):
    assert main(["models", "--filter", "*swin*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("mohsa_swin_tiny" in line and line.endswith("3-6-12-24") for line in lines)
    assert max(map(len, lines[:-1])) > 80 and "…" not in "".join(lines)
