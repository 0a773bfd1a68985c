"""Recipes out of files, bases and overrides."""

import pytest

from crosshead.recipe import Recipe, RecipeError, dump_recipe, load_recipe, shipped_recipes


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_loads_and_survives_a_round_trip(name, write):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_recipe(write("again.yaml", dump_recipe(recipe))) == recipe


def test_shipped_names_are_unique():
    from crosshead.recipe.compose import shipped_folder

    stems = [p.stem for p in shipped_folder().rglob("*.yaml") if p.parent.name != "shared"]
    assert len(stems) == len(set(stems))


def test_a_recipe_changes_its_base_key_by_key(write):
    write("a.yaml", "name: a\nnotes: of a\noptimizer: {lr: 1e-3, betas: [0.8, 0.9]}\ntrain: {epochs: 30}\n")
    recipe = load_recipe(write("b.yaml", "base: a.yaml\noptimizer:\n  lr: 2e-3\n"))
    assert recipe.optimizer.lr == 2e-3
    assert recipe.optimizer.betas == (0.8, 0.9)
    assert recipe.train.epochs == 30
    assert (recipe.name, recipe.notes) == ("b", None)  # not inherited


def test_bases_are_laid_over_one_another_from_left_to_right(write):
    write("a.yaml", "data:\n  batch_size: 1\n  num_workers: 1\n")
    write("b.yaml", "data:\n  batch_size: 2\n")
    data = load_recipe(write("c.yaml", "base: [a.yaml, b.yaml]\n")).data
    assert (data.batch_size, data.num_workers) == (2, 1)


def test_a_base_may_have_bases_itself(write):
    write("a.yaml", "name: a\ndata:\n  batch_size: 1\n  num_workers: 1\n")
    write("b.yaml", "name: b\nbase: a.yaml\ndata:\n  batch_size: 2\n")
    recipe = load_recipe(write("c.yaml", "base: [b.yaml, digits]\nmodel:\n  overlap: index\n"))
    assert (recipe.name, recipe.data.batch_size, recipe.data.num_workers) == ("c", 64, 1)
    assert recipe.model.name == "plain_vit_micro_patch2_32"


def test_bases_in_a_circle_are_refused(write):
    write("a.yaml", "base: b.yaml\n")
    write("b.yaml", "base: c.yaml\n")
    with pytest.raises(
        RecipeError, match=r"b.yaml:1: .*is its own base \(c.yaml -> a.yaml -> b.yaml -> c.yaml\)"
    ):
        load_recipe(write("c.yaml", "\nbase: a.yaml\n"))


def test_a_warm_up_shrinks_with_an_override_that_shortens_training(write):
    path = write("a.yaml", "train: {epochs: 50}\nschedule: {warmup_epochs: 5}\n")
    for words, epochs, warmup in (
        (["train.epochs=2"], 2, 0.2),
        (["train.epochs=100"], 100, 5),
        (["train.epochs=10", "schedule.warmup_epochs=3"], 10, 3),
        ([], 50, 5),
    ):
        recipe = load_recipe(path, words)
        assert (recipe.train.epochs, recipe.schedule.warmup_epochs) == (epochs, warmup)
    assert load_recipe(path, values={"train.epochs": 1}).schedule.warmup_epochs == 0.1
    assert load_recipe("vit_tiny_16_224_imagenet", ["train.epochs=3"]).schedule.warmup_epochs == 0.2
    with pytest.raises(RecipeError, match="no step is left for the cosine"):
        load_recipe(write("b.yaml", "train: {epochs: 10}\n"))


def test_a_warm_up_keeps_its_share_of_a_length_in_steps(write):
    in_epochs = write("a.yaml", "train: {epochs: 50}\nschedule: {warmup_epochs: 5}\n")
    in_steps = write("b.yaml", "train: {steps: 1000}\nschedule: {warmup_steps: 100}\n")
    for path, words, warmup, warmup_steps in (
        (in_epochs, ["train.steps=12"], 5, 1),
        (in_epochs, ["train.steps=3"], 5, 0),
        (in_epochs, ["train.steps=12", "schedule.warmup_steps=4"], 5, 4),
        (in_epochs, ["train.steps=12", "schedule.warmup_epochs=2"], 2, None),
        (in_steps, ["train.steps=40"], 20, 4),
        (in_steps, ["train.steps=4000"], 20, 100),
        (in_steps, ["train.steps=40", "schedule.warmup_steps=0"], 20, 0),
        (in_steps, [], 20, 100),
    ):
        schedule = load_recipe(path, words).schedule
        assert (schedule.warmup_epochs, schedule.warmup_steps) == (warmup, warmup_steps), words
    path = write("c.yaml", "train: {steps: 1000}\nschedule: {warmup_epochs: 2}\n")
    assert load_recipe(path, ["train.steps=500"]).schedule.warmup_epochs == 1
    assert load_recipe("scenes_mask_rcnn", ["train.steps=24"]).schedule.warmup_steps == 1


def test_another_kind_of_interaction_leaves_the_options_of_the_one_before(write):
    for recipe in (
        load_recipe("finetune", ["model.interaction.kind=knocking"]),
        load_recipe(write("a.yaml", "base: finetune\nmodel: {interaction: {kind: knocking}}\n")),
    ):
        assert recipe.model.interaction.model_dump() == {
            "kind": "knocking",
            "init": "preserve",
            "blocks": None,
        }
    words = ["model.interaction.form=gated", "model.interaction.kind=knocking"]  # in whatever order
    assert load_recipe("finetune", words).model.interaction.form == "gated"
    assert (
        load_recipe("finetune", ["model.interaction.kind=overlap"]).model.interaction.overlap
        == "fraction:0.5"
    )


def test_overrides_win_in_their_order(write):
    path = write("a.yaml", "train:\n  epochs: 30\n")
    overrides = ["train.epochs=50", "train.epochs=40", "model.overlap=[0,1]", "optimizer.lr=1e-3"]
    overrides += ["model.interaction.kind=overlap", "model.args.qkv_bias=false", "optimizer.clip_grad=null"]
    recipe = load_recipe(path, overrides)
    assert recipe.train.epochs == 40
    assert recipe.model.overlap == [0, 1]
    assert recipe.model.interaction is not None and recipe.model.interaction.kind == "overlap"
    assert recipe.model.args == {"qkv_bias": False}
    assert recipe.optimizer.clip_grad is None


def test_a_path_below_configs_finds_the_shipped_recipe():
    assert load_recipe("configs/digits_mohsa.yaml") == load_recipe("digits_mohsa")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer:\n  lrr: 1", r"a.yaml:2: unknown key 'optimizer.lrr'; the nearest one is 'optimizer.lr'"),
        ("lr: 1e-3", r"a.yaml:1: unknown key 'lr'; the nearest one is 'optimizer.lr'"),
        (
            "train:\n  batch_size: 3",
            r"unknown key 'train.batch_size'; the nearest one is 'data.batch_size'",
        ),
        ("optimiser:\n  lr: 1", r"a.yaml:1: unknown key 'optimiser'; the nearest one is 'optimizer'"),
        (
            "model:\n  interaction:\n    knd: x",
            r"a.yaml:2: model.interaction: interaction 'overlap' has no option 'knd'; did you mean 'kind'\?",
        ),
        ("optimizer:\n  lr: no", r'a.yaml:2: optimizer.lr: expected a number above 0, got "no"'),
        ("optimizer:\n  lr: true", r"a.yaml:2: optimizer.lr: expected a number above 0, got true"),
        (
            "train:\n  epochs: 10.0",
            r"a.yaml:2: train.epochs: expected a whole number above 0 \(epochs\), got 10.0",
        ),
        (
            "train:\n  epochs: '10'",
            r'a.yaml:2: train.epochs: expected a whole number above 0 \(epochs\), got "10"',
        ),
        ("train:\n  epochs: 0", r"a.yaml:2: train.epochs: expected a whole number above 0 \(epochs\), got 0"),
        (
            "train:\n  precision: fp8",
            r'a.yaml:2: train.precision: expected fp32, bf16 or fp16, got "fp8"',
        ),
        (
            "model:\n  overlap: [1, x]",
            r'a.yaml:2: model.overlap\[1\]: expected a whole number \(channels\), got "x"',
        ),
        ("model: null", r"a.yaml:1: model: expected a section of keys, got null"),
        ("train:\n  epochs: 3", r"schedule.warmup_epochs is 20 and train.epochs 3"),
        ("", r"a.yaml: expected keys and values .* got nothing"),
        ("- a", r"a.yaml: expected keys and values .* got list"),
        ("base: nowhere", r"no recipe is called 'nowhere'"),
        ("base: nowhere.yaml", r"no recipe file nowhere.yaml"),
        ("base: 3", r"a.yaml:1: base: expected a recipe's name or a list of names, got 3"),
        ("base: []", r"a.yaml:1: base: expected"),
        ("base: a.yaml", r"a.yaml:1: 'a.yaml' is its own base \(a.yaml -> a.yaml\)"),
    ],
)
def test_a_wrong_file_is_named_with_line_and_remedy(write, text, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(write("a.yaml", text))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.lrr=1",
            r"command line, optimizer.lrr=1: unknown key 'optimizer.lrr'; the nearest",
        ),
        (
            "optimizer.lr=fast",
            r'command line, optimizer.lr=fast: optimizer.lr: expected a number above 0, got "fast"',
        ),
        ("optimizer.lr", r"expected KEY=VALUE, as in optimizer.lr=1e-3, got 'optimizer.lr'"),
        ("=3", r"expected KEY=VALUE"),
        ("optimizer.lr=", r"no value after '='; write optimizer.lr=null"),
        ("optimizer={lr: 1}", r"expected one value or a list"),
        ("optimizer=1", r"optimizer: expected a section of keys, got 1"),
        ("model.name.x=1", r"unknown key 'model.name.x'"),
        ("data.mean=[1", r"not YAML"),
        ("model.overlap=[0,x]", r'model.overlap\[1\]: expected a whole number \(channels\), got "x"'),
    ],
)
def test_a_wrong_override_is_named_as_it_was_typed(override, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("digits", [override])


def test_each_mistake_has_its_own_line(write):
    with pytest.raises(RecipeError) as error:
        load_recipe(write("a.yaml", "train:\n  epochs: x\n  sede: 1\n"))
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("name", ["digts", "digits_mohs"])
def test_an_unknown_recipe_names_the_nearest(name):
    with pytest.raises(RecipeError, match="the nearest are digits"):
        load_recipe(name)


def test_files_that_are_no_text_or_not_there(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not text in UTF-8"):
        load_recipe(path)
    with pytest.raises(RecipeError, match="no recipe file"):
        load_recipe(tmp_path / "b.yaml")


def test_the_defaults_are_a_recipe(write):
    assert load_recipe(write("run.yaml", "name: run"), ["data.split_seed=null"]) == Recipe()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "augment.crop_scale=[1.0,0.2]",
            "augment.crop_scale: expected two numbers above 0, the smaller one first",
        ),
        ("augment.crop_ratio=[0,1]", "augment.crop_ratio: expected two numbers above 0"),
        ("augment.affine_scale=[1.1,0.9]", "augment.affine_scale: expected two numbers above 0"),
        ("augment.color_jitter=-1", "augment.color_jitter: expected a number from 0 up or null, got -1"),
        ("optimizer.betas=[0.9,1.0]", "optimizer.betas[1]: expected a number from 0 to below 1, got 1.0"),
    ],
)
def test_ranges_that_run_backwards_or_too_far_are_named(override, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe("digits", [override])
    assert message in str(caught.value)


def test_a_file_that_is_no_recipe_is_not_read_to_its_end(tmp_path):
    (tmp_path / "huge.yaml").write_text("a: " + "b" * 10_000_000)
    with pytest.raises(RecipeError, match="more than 200,000 characters"):
        load_recipe(tmp_path / "huge.yaml")
