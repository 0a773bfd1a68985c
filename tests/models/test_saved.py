"""A model to a folder and back in one call; reports that rebuild; undone swaps, other schedules, dry runs."""

import copy
import json

import pytest
import timm
import torch
from torch import nn

import crosshead
from crosshead import SwapReport, restore_attention, supported, swap_attention
from crosshead.layers import INTERACTIONS, InteractingAttention
from crosshead.swap import apply_interactions, interactions_of
from tolerances import OUTPUT, assert_close

SMALL = dict(img_size=32, depth=2, embed_dim=24, num_heads=3, patch_size=8)


def images(channels=3, seed=0):
    return torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(seed))


def vit(name="vit_tiny_patch16_224", **options):
    torch.manual_seed(0)
    return timm.create_model(name, **SMALL | dict(num_classes=3) | options).eval()


def disturb(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return model


SWAPS = {
    "plain": [],
    "overlap": [dict(overlap="index+1")],
    "as the paper": [dict(overlap=2, init="paper", blocks=[1])],
    "interactive": [dict(kind="imhsa", init="paper", landmarks=(2, 1))],
    "two kinds": [dict(kind="talking", blocks=[0]), dict(kind="overlap", overlap=3, blocks=[1])],
}


@pytest.mark.parametrize("swaps", SWAPS)
@pytest.mark.parametrize("reader", ["crosshead", "timm"])
def test_a_swapped_model_comes_back(swaps, reader, tmp_path):
    model = vit(in_chans=1)
    for swap in SWAPS[swaps]:
        swap_attention(model, **swap)
    disturb(model)
    crosshead.save(model, tmp_path / "m", args=SMALL, classes=["a", "b", "c"], preparation={"mean": [0.5]})
    if reader == "timm":
        back = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True).eval()
    else:
        back = crosshead.load(tmp_path / "m")
    assert torch.equal(back(images(1)), model(images(1)))
    assert interactions_of(back) == interactions_of(model)
    assert list(back.pretrained_cfg["label_names"]) == ["a", "b", "c"] and list(
        back.pretrained_cfg["mean"]
    ) == [0.5]
    crosshead.save(back, tmp_path / "again", args=None if SWAPS[swaps] else SMALL)
    assert torch.equal(crosshead.load(tmp_path / "again")(images(1)), model(images(1)))


@pytest.mark.parametrize("again", [False, True])
def test_own_models_remember_their_arguments(again, tmp_path):
    model = vit("mohsa_vit_micro_patch2_32", overlap="reversed+1")
    if again:
        swap_attention(model, "talking", init="paper", blocks=[0])
    disturb(model)
    crosshead.save(model, tmp_path)
    held = json.loads((tmp_path / "config.json").read_text())
    assert held["architecture"] == ("crosshead_swapped" if again else "mohsa_vit_micro_patch2_32")
    assert torch.equal(crosshead.load(tmp_path)(images()), model(images()))


def test_what_cannot_be_built_again_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"is another model: .*give save\(..., args=...\)"):
        crosshead.save(forget(vit()), tmp_path / "a")
    with pytest.raises(ValueError, match="Linear is not a model of timm's registry"):
        crosshead.save(nn.Linear(2, 2), tmp_path / "a")
    with pytest.raises(ValueError, match="can't be written as JSON"):
        crosshead.save(vit(), tmp_path / "a", args=SMALL | {"norm_layer": nn.LayerNorm})
    assert not (tmp_path / "a").exists()


def test_a_folder_that_holds_none_or_a_damaged_one_is_named(tmp_path):
    with pytest.raises(ValueError, match="is not a run folder"):
        crosshead.load(tmp_path)
    crosshead.save(vit(), tmp_path, args=SMALL)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="holds no saved model"):
        crosshead.load(tmp_path)
    other = vit(depth=3)
    crosshead.save(other, tmp_path / "b", args=SMALL | {"depth": 3})
    (tmp_path / "b" / "model.safetensors").rename(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors is not of .*config.json"):
        crosshead.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("model_args"), "is not of crosshead.save.*'local-dir:FOLDER'"),
        (lambda c: c.pop("pretrained_cfg"), "is not of crosshead.save"),
        (lambda c: c["model_args"].update(name="no_such_model"), "can't be built: Unknown model"),
        (lambda c: c["model_args"].update(later=1), "can't be built: .*unexpected keyword argument 'later'"),
        (lambda c: c["model_args"]["interactions"][0].pop("options"), "expected a list of path, kind, init"),
    ],
)
def test_a_configuration_that_another_wrote_is_named(change, message, tmp_path):
    crosshead.save(swap_and("overlap", overlap=1), tmp_path, args=SMALL)
    config = json.loads((tmp_path / "config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        crosshead.load(tmp_path)


def test_interactions_that_cannot_be_leave_the_model_as_it_was():
    model = disturb(swap_and("talking", overlap=1))
    want, held = model(images()), interactions_of(swap_and("overlap", overlap=1))
    for bad in (held[1] | {"path": "nowhere"}, held[1] | {"options": {"overlap": 99}}, "no entry"):
        with pytest.raises(ValueError, match=r"no attention|overlap|expected a list"):
            apply_interactions(model, [held[0], bad])
        assert torch.equal(model(images()), want)
    apply_interactions(model, held)
    assert interactions_of(model) == held


def test_half_precision_comes_back_in_half_precision(tmp_path):
    model = swap_and("talking", overlap=1).bfloat16()
    crosshead.save(model, tmp_path, args=SMALL)
    again = crosshead.load(tmp_path)
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    assert torch.equal(again(images().bfloat16()), model(images().bfloat16()))


def test_a_report_is_json_that_gives_it_back():
    report = swap_attention(vit(), overlap="index+1")
    assert SwapReport.from_json(report.to_json()) == report
    with pytest.raises(ValueError, match="not a report of a swap"):
        SwapReport.from_json('{"kind": "overlap"}')


def test_interactions_rebuild_on_another_copy():
    model, other = vit(), swap_and("overlap", overlap=1)
    for swap in SWAPS["two kinds"]:
        swap_attention(model, **swap)
    held = json.loads(json.dumps(interactions_of(disturb(model))))
    apply_interactions(other, held)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images()), model(images()))
    with pytest.raises(ValueError, match=r"no attention at 'blocks.2.attn'"):
        apply_interactions(vit(), [held[0] | {"path": "blocks.2.attn"}])


def swap_and(kind, **options):
    model = vit()
    swap_attention(model, kind, **options)
    return model


def test_a_dry_run_reports_and_changes_nothing():
    model = vit(dynamic_img_size=True)
    before, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    supported(model)
    for kind, options in (("overlap", {}), ("imhsa", dict(init="paper"))):
        report = swap_attention(model, kind, dry_run=True, **options)
        assert torch.equal(torch.get_rng_state(), drawn)
        assert len(report.replaced) == 2
        assert report == swap_attention(vit(dynamic_img_size=True), kind, **options)
        torch.set_rng_state(drawn)
    for kind in ("overlap", "talking", "reattention"):
        swap_attention(model, kind, init="paper", dry_run=True)
    supported(model)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not any(isinstance(m, InteractingAttention) for m in model.modules())
    assert not hasattr(model, "swap_report") and not model.patch_embed._forward_hooks
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_supported_kinds():
    assert supported(vit()) == tuple(INTERACTIONS)
    with torch.device("meta"):
        assert "reattention" not in supported(timm.create_model("swin_tiny_patch4_window7_224"))
        assert {"overlap", "talking"} <= set(supported(timm.create_model("eva02_tiny_patch14_224")))
        assert supported(timm.create_model("resnet18")) == ()
        assert supported(vit().blocks[0].attn) == ()  # which swap_attention refuses as a model


@pytest.mark.parametrize("kind", ["overlap", "talking", "imhsa"])
def test_undone_it_is_what_it_was(kind):
    model = vit(dynamic_img_size=True)
    want, names = model(images()), list(model.state_dict())
    spared = model.no_weight_decay()
    swap_attention(model, kind, init="paper")
    assert restore_attention(model) == 2
    assert list(model.state_dict()) == names and type(model.blocks[0].attn).__name__ == "Attention"
    assert torch.equal(model(images()), want) and model.no_weight_decay() == spared
    assert not model.patch_embed._forward_hooks and restore_attention(model) == 0


def test_another_schedule_goes_on_from_what_was_learned():
    model = disturb(swap_and("overlap", overlap="index"))
    want = model(images())
    swap_attention(model, overlap="index+1")
    assert_close(model(images()), want, OUTPUT[torch.float32])
    with pytest.raises(ValueError, match=r"block 1 .*they borrow less; pass init='paper'"):
        swap_attention(model, overlap=1)
    with pytest.raises(ValueError, match="another kind takes their place; call restore_attention first"):
        swap_attention(model, "talking")
    swap_attention(model, overlap=1, init="paper")
    assert [block.attn.interaction.overlap for block in model.blocks] == [1, 1]


def test_a_run_loads_too(tmp_path):
    from crosshead.recipe.compose import load_recipe
    from crosshead.train.run import train

    short = ["train.epochs=1", "data.validation=0.9", f"output={tmp_path}", "log.tensorboard=false"]
    swap = ["model.name=vit_tiny_patch16_224", "model.overlap=1", "model.interaction.kind=overlap"]
    size = [
        "model.args.depth=2",
        "model.args.embed_dim=24",
        "model.args.num_heads=3",
        "model.args.patch_size=2",
    ]
    train(load_recipe("digits", [*short, *swap, *size, "schedule.warmup_epochs=0"]))
    model = crosshead.load(tmp_path / "digits")
    assert len(model.pretrained_cfg["label_names"]) == 10 and model.pretrained_cfg["input_size"][-1] == 8
    assert [entry["options"] for entry in interactions_of(model)] == [{"overlap": 1}] * 2


def forget(model):
    """A model as timm made them before it remembered its arguments."""
    vars(model).pop("_model_args", None)
    return model


remembers = pytest.mark.skipif(
    not hasattr(timm.create_model("resnet10t"), "_model_args"), reason="this timm does not remember arguments"
)
HIDDEN = [
    dict(num_heads=6),
    dict(act_layer=nn.ReLU),
    dict(act_layer=nn.SiLU, init_values=1e-5),
    dict(act_layer="relu"),
    dict(global_pool="max"),
    dict(global_pool="max", num_classes=0),
]


@remembers
@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
def test_arguments_that_leave_no_trace_in_the_weights_come_back_or_are_refused(hidden, tmp_path):
    model = vit(**hidden)
    crosshead.save(model, tmp_path / "a")
    disturb(model)
    crosshead.save(model, tmp_path / "b")
    assert torch.equal(crosshead.load(tmp_path / "b")(images()), model(images()))
    with pytest.raises(ValueError, match=r"is another model: .*give save\(..., args=...\)"):
        crosshead.save(forget(vit(**dict(num_heads=6) | hidden)), tmp_path / "c", args=SMALL)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "hidden", [dict(num_heads=6), dict(act_layer="relu"), dict(act_layer="gelu_tanh")], ids=str
)
def test_outputs_decide_where_names_and_shapes_are_the_same(hidden, tmp_path):
    for scale in ({}, dict(init_values=1e-5)):
        model = vit(**hidden | scale)
        with pytest.raises(
            ValueError, match=r"names and shapes are the same, and its outputs are others.*give save"
        ):
            crosshead.save(forget(model), tmp_path / "a", args=SMALL | scale)
        crosshead.save(model, tmp_path / "b", args=SMALL | hidden | scale)


@remembers
def test_what_timm_remembers_needs_no_arguments(tmp_path):
    model = vit()
    swap_attention(model, "overlap", overlap=1)
    drawn, training = torch.get_rng_state(), [m.training for m in model.train().modules()]
    crosshead.save(model, tmp_path)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [m.training for m in model.modules()] == training
    assert torch.equal(crosshead.load(tmp_path)(images()), model.eval()(images()))
    crosshead.save(crosshead.load(tmp_path), tmp_path / "again")
    assert torch.equal(crosshead.load(tmp_path / "again")(images()), model(images()))


def test_a_convolutional_model(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=2, in_chans=1).eval()
    crosshead.save(model, tmp_path, preparation={"input_size": [1, 64, 64]})
    assert torch.equal(crosshead.load(tmp_path)(images(1)), model(images(1)))


@remembers
def test_a_compiled_model_is_saved_as_what_is_in_it(tmp_path):
    model = vit()
    crosshead.save(torch.compile(model), tmp_path / "a")
    assert torch.equal(crosshead.load(tmp_path / "a")(images()), model(images()))
    model.compile()
    crosshead.save(model, tmp_path / "b")


@pytest.mark.parametrize("swapped", [False, True])
def test_a_strange_folder_has_nothing_fetched_and_no_file_elsewhere_read(swapped, tmp_path, monkeypatch):
    import timm.models._builder as builder
    import timm.models._factory as factory

    model = vit()
    if swapped:
        swap_attention(model, overlap=1)
    crosshead.save(model, tmp_path, args=SMALL)
    config = json.loads((tmp_path / "config.json").read_text())
    source = {
        "url": "file:///elsewhere.pth",
        "file": "/elsewhere.pth",
        "hf_hub_id": "some/one",
        "custom_load": True,
    }
    config["pretrained_cfg"] |= source
    config["model_args"] |= {
        "pretrained": True,
        "pretrained_cfg": source,
        "pretrained_cfg_overlay": source,
        "checkpoint_path": "/elsewhere.pth",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    for module, name in ((builder, "load_pretrained"), (factory, "load_checkpoint")):
        monkeypatch.setattr(module, name, lambda *args, **kwargs: pytest.fail("something is fetched"))
    back = crosshead.load(tmp_path)
    assert torch.equal(back(images()), model(images()))
    assert not any(
        back.pretrained_cfg.get(key) == value for key, value in source.items() if key != "custom_load"
    )
    for address in ("hf-hub:some/one", "local-dir:/elsewhere"):
        config["model_args" if swapped else "architecture"] = (
            config["model_args"] | {"name": address} if swapped else address
        )
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="can't be built: Unknown model"):
            crosshead.load(tmp_path)
