"""Checkpoints of the authors' code: the same logits, their file format, and what is refused."""

import pytest
import timm
import torch

from crosshead.models.authors import from_authors_state, load_authors_checkpoint
from crosshead.models.authors.parts import mlp_ratio, overlaps_from_widths
from golden_files import load_golden
from tolerances import GOLDEN_OUTPUT, assert_close


def golden_state(name):
    case, file = load_golden(name)
    return (
        case,
        file,
        {key.removeprefix("state."): tensor for key, tensor in file.items() if key.startswith("state.")},
    )


def test_golden_vit():
    case, file, state = golden_state("vit_model")
    checkpoint = from_authors_state(state)
    assert checkpoint.args["num_heads"] == case["heads"] and checkpoint.args["overlap"] == list(
        range(case["depth"])
    )
    assert_close(checkpoint.model(file["x"]), file["logits"], GOLDEN_OUTPUT[torch.float32])
    again = timm.create_model(checkpoint.name, **checkpoint.args).eval()
    again.load_state_dict(checkpoint.model.state_dict())
    assert torch.equal(again(file["x"]), checkpoint.model(file["x"]))


def test_golden_swin():
    case, file, state = golden_state("swin_model")
    checkpoint = from_authors_state(state)
    for name in ("embed_dim", "num_classes", "patch_size"):
        assert checkpoint.args[name] == case[name]
    assert list(checkpoint.args["depths"]) == case["depths"]
    assert list(checkpoint.args["num_heads"]) == case["num_heads"]
    assert checkpoint.args["overlap"] == [0, 1, 2, 3]
    checkpoint.model.set_input_size((case["image_size"], case["image_size"]), window_size=case["window"])
    assert_close(checkpoint.model(file["x"]), file["logits"], GOLDEN_OUTPUT[torch.float32])


def test_golden_cait():
    case, file, state = golden_state("cait_model")
    checkpoint = from_authors_state(state)
    args = checkpoint.args
    assert (args["num_heads"], args["depth"], args["depth_token_only"]) == (
        case["heads"],
        case["depth"],
        case["cls_depth"],
    )
    assert args["overlap"] == list(range(case["depth"])) and args["form"] == "authors"
    assert_close(checkpoint.model(file["x"]), file["logits"], GOLDEN_OUTPUT[torch.float32])
    again = timm.create_model(checkpoint.name, **args).eval()
    again.load_state_dict(checkpoint.model.state_dict())
    assert torch.equal(again(file["x"]), checkpoint.model(file["x"]))


def test_cait_that_does_not_fit():
    _, _, state = golden_state("cait_model")
    with pytest.raises(ValueError, match="this checkpoint has 4 heads, not 5; leave num_heads out"):
        from_authors_state(state, num_heads=5)
    assert from_authors_state(state, num_heads=4).args["num_heads"] == 4
    with pytest.raises(ValueError, match="no class blocks"):
        from_authors_state({name: t for name, t in state.items() if not name.startswith("cls_")})


@pytest.mark.parametrize("name", ["vit_model", "cait_model", "swin_model"])
def test_checkpoint_that_is_not_whole(name):
    _, _, state = golden_state(name)
    head = "head.weight" if name == "swin_model" else "mlp_head.1.weight"
    with pytest.raises(ValueError, match=f"not whole: it has no tensor '{head}'"):
        from_authors_state({key: tensor for key, tensor in state.items() if key != head})
    with pytest.raises(ValueError, match=r"make no mohsa_.*size mismatch"):
        from_authors_state(state | {head.replace("weight", "bias"): torch.zeros(3)})


def test_patches_of_other_channels():
    _, _, state = golden_state("vit_model")
    with pytest.raises(ValueError, match="patches of 64 numbers are not square ones of 3 channels"):
        from_authors_state(state | {"to_patch_embedding.1.weight": torch.zeros(40, 64)})


def test_mlp_ratio_gives_the_width_back():
    assert mlp_ratio(768, 192) == 4.0
    for hidden, dim in ((98, 88), (61, 56), (115, 56)):
        assert int(dim * (hidden / dim)) != hidden and int(dim * mlp_ratio(hidden, dim)) == hidden


def test_swin_takes_its_image_size_from_the_masks():
    case, file, state = golden_state("swin_model")
    windows = (case["image_size"] // case["patch_size"] // case["window"]) ** 2
    area = case["window"] ** 2
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(windows, area, area)
    state["layers.0.blocks.1.attn.relative_position_index"] = torch.zeros(area, area, dtype=torch.long)
    checkpoint = from_authors_state(state)
    assert_close(checkpoint.model(file["x"]), file["logits"], GOLDEN_OUTPUT[torch.float32])


def test_swin_that_does_not_fit():
    _, _, state = golden_state("swin_model")
    with pytest.raises(ValueError, match="first stage has 2 heads, not 4"):
        from_authors_state(state, num_heads=4)
    with pytest.raises(ValueError, match="absolute position embedding"):
        from_authors_state(state | {"absolute_pos_embed": torch.zeros(1, 196, 16)})


@pytest.mark.parametrize("wrapped", [True, False])
def test_file_as_their_training_writes_it(tmp_path, wrapped):
    """Their checkpoints hold a yacs configuration beside the weights, which needs no yacs here."""
    _, file, state = golden_state("vit_model")
    content = dict(model=state, epoch=3, config=_config_node()) if wrapped else state
    torch.save(content, tmp_path / "checkpoint.pth")
    data = (tmp_path / "checkpoint.pth").read_bytes()
    assert (b"yacs.config" in data) == wrapped
    checkpoint = load_authors_checkpoint(tmp_path / "checkpoint.pth")
    assert_close(checkpoint.model(file["x"]), file["logits"], GOLDEN_OUTPUT[torch.float32])


def _config_node():
    """An object that pickles as yacs' CfgNode does: a dict subclass with attributes."""
    import sys
    import types

    module = types.ModuleType("yacs.config")
    node_class = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    module.CfgNode = node_class
    sys.modules["yacs"], sys.modules["yacs.config"] = types.ModuleType("yacs"), module
    node = node_class(MODEL=node_class(NAME="mohsa"), EPOCHS=100)
    node.__dict__["__immutable__"] = True
    return node


def test_heads_from_widths():
    assert overlaps_from_widths(192, [192, 216, 240], None) == (12, [0, 1, 2])
    assert overlaps_from_widths(192, [216, 192, 192], None) == (12, [1, 0, 0])
    assert overlaps_from_widths(192, [264, 264], 12) == (12, [3, 3])


@pytest.mark.parametrize(
    ("inputs", "heads", "message"),
    [
        ([264, 264], None, "can't be told .*--num-heads"),
        ([192, 216], 7, "7 heads don't fit"),
        ([100, 216], 12, "12 heads don't fit"),
    ],
)
def test_heads_that_do_not_fit(inputs, heads, message):
    with pytest.raises(ValueError, match=message):
        overlaps_from_widths(192, inputs, heads)


def test_checkpoint_of_another_model():
    with pytest.raises(
        ValueError, match=r"not a checkpoint of the authors' code: expected .* got conv.weight"
    ):
        from_authors_state({"conv.weight": torch.zeros(1)})


def test_file_that_would_run_code_does_not(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "created"), "w"))

    torch.save({"model": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match="without running code"):
        load_authors_checkpoint(tmp_path / "hostile.pth")
    assert not (tmp_path / "created").exists()


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.pth"):
        load_authors_checkpoint(tmp_path / "absent.pth")
