"""Exported programs: what varies in them, that they compute what the model does, and what is refused."""

import json

import pytest
import timm
import torch
from torch import nn

from crosshead import swap_attention
from crosshead.export import programs
from crosshead.export.programs import ABOUT, TOLERANCE, export_model
from crosshead.models.detectors import build_detector
from crosshead.models.segmenters import build_segmenter
from export.export_cases import on_host
from models.dense_cases import small_maps
from tolerances import OUTPUT, assert_close

TWO_STAGES = dict(depths=(1, 1), dims=(8, 12), num_heads=(1, 2), attention_stages=(1,))


def test_the_tolerance_is_the_tables():
    assert OUTPUT[torch.float32] == TOLERANCE


def differs(file, module, *shapes):
    """The file's outputs are the module's."""
    program = torch.export.load(file).module()
    with torch.no_grad():
        for shape in shapes:
            images = torch.randn(shape, generator=torch.Generator().manual_seed(5))
            got, want = program(images), module.eval()(images)
            for one, other in zip(*([x] if torch.is_tensor(x) else x for x in (got, want)), strict=True):
                assert_close(one, other, OUTPUT[torch.float32], str(shape))


@pytest.mark.soak
def test_a_backbone_takes_any_number_and_size_of_images(tmp_path):
    maps = small_maps(**TWO_STAGES)
    exported = export_model(
        maps, tmp_path / "b.pt2", size=(32, 48), part="backbone", about={"model": "small"}
    )
    assert exported.inputs == ("batch", 3, "height", "width") and exported.multiple == 8
    assert exported.fixed_because is None and exported.outputs[0][:2] == (1, 8)
    differs(tmp_path / "b.pt2", maps, (1, 3, 64, 64), (3, 3, 24, 80), (2, 3, 96, 40))
    extra = {ABOUT: ""}
    torch.export.load(tmp_path / "b.pt2", extra_files=extra)
    about = json.loads(extra[ABOUT])
    assert about["model"] == "small" and about["multiple"] == 8 and about["inputs"][0] == "batch"
    assert [each.name for each in tmp_path.iterdir()] == ["b.pt2"]


def test_a_segmenter_takes_any_number_of_images_of_one_size(tmp_path):
    model = build_segmenter("semantic_fpn", small_maps(**TWO_STAGES), 5, width=32, pyramid={"width": 8})
    exported = export_model(model, tmp_path / "s.pt2", size=(41, 57))
    assert exported.inputs == ("batch", 3, 41, 57)
    differs(tmp_path / "s.pt2", model, (1, 3, 41, 57), (4, 3, 41, 57))


@pytest.mark.soak
def test_dense_detectors_go_whole_and_of_others_backbone_and_pyramid(tmp_path):
    staged = build_detector("faster_rcnn", small_maps(), 4, pyramid={"width": 8}, box_width=8)
    with pytest.raises(ValueError, match=r"can't be exported whole as a program.*--to onnx.*--backbone"):
        export_model(staged, tmp_path / "d.pt2", size=(64, 64))
    model = build_detector("retinanet", small_maps(), 4, pyramid={"width": 8})
    whole = export_model(model, tmp_path / "w.pt2", size=(64, 64))
    assert whole.inputs == ("batch", 3, 64, 64) and [len(each) for each in whole.outputs] == [3, 3]
    exported = export_model(model, tmp_path / "p.pt2", size=(64, 80), part="pyramid")
    assert exported.inputs == ("batch", 3, 64, 80) and len(exported.outputs) == 5
    differs(tmp_path / "p.pt2", model.pyramid, (2, 3, 64, 80))


def test_a_plain_vit_of_one_size_says_what_may_vary(tmp_path):
    model = timm.create_model(
        "mohsa_vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=1, num_heads=2, overlap=3
    )
    exported = export_model(model, tmp_path / "v.pt2", size=(32, 32))
    assert exported.inputs == ("batch", 3, 32, 32)
    differs(tmp_path / "v.pt2", model, (3, 3, 32, 32))
    exported = export_model(model, tmp_path / "w.pt2", size=(32, 32), part="backbone")
    assert exported.inputs == ("batch", 3, 32, 32) and exported.fixed_because


def test_transformers_hand_a_program_no_empty_mask_either(tmp_path):
    """Re-attention takes no mask; while they are exported, their models once brought one that hides nothing."""
    model, (channels, height, width), _ = on_host("transformers' DINOv2", "reattention")
    exported = export_model(model.eval(), tmp_path / "d.pt2", size=(height, width), channels=channels)
    assert exported.inputs == ("batch", channels, height, width)
    differs(tmp_path / "d.pt2", model, (3, channels, height, width))


class Counting(nn.Module):
    def forward(self, images):
        return images * int(images.sum() > 0)


def test_what_cannot_be_exported_is_said_and_leaves_no_file(tmp_path, monkeypatch):
    kept = tmp_path / "kept.pt2"
    kept.write_bytes(b"before")
    model = build_segmenter("linear", small_maps(**TWO_STAGES), 2)
    with pytest.raises(ValueError, match=r"must end in \.pt2"):
        export_model(model, tmp_path / "model.onnx", size=(32, 32))
    with pytest.raises(ValueError, match="has no pyramid"):
        export_model(model, kept, size=(32, 32), part="pyramid")
    with pytest.raises(ValueError, match="does not take images of 4 x 4"):
        small = dict(depths=(1, 1), dims=(8, 8), num_heads=(1, 1), attention_stages=(1,))
        export_model(timm.create_model("ivit_tiny", **small), kept, size=(4, 4))
    with pytest.raises(ValueError, match=r"torch\.export can't follow this model"):
        export_model(Counting(), kept, size=(8, 8))
    load = torch.export.load

    def other(file):
        program = load(file)
        for tensor in program.state_dict.values():
            tensor.mul_(1.01)
        return program

    monkeypatch.setattr(programs.torch.export, "load", other)
    with pytest.raises(ValueError, match="differs from the model by"):
        export_model(model, kept, size=(32, 32))
    assert kept.read_bytes() == b"before" and [each.name for each in tmp_path.iterdir()] == ["kept.pt2"]


@pytest.mark.soak  # test_onnx_file.py goes through the same trace
@pytest.mark.parametrize("kind", ["talking", "dcmha", "overlap", "knocking"])
def test_any_number_of_images_goes_through_windows(kind, tmp_path):
    """Shifted windows, whose mask is repeated over the images."""
    model = timm.create_model(
        "plain_swin_micro_patch2_window4_32", depths=(2,), num_heads=(3,), num_classes=4
    )
    swap_attention(model, kind, init="paper")
    exported = export_model(model, tmp_path / "swin.pt2", size=(32, 32))
    assert exported.inputs == ("batch", 3, 32, 32) and exported.fixed_because is None
    differs(tmp_path / "swin.pt2", model, (1, 3, 32, 32), (5, 3, 32, 32))


@pytest.mark.soak
def test_landmarks_are_those_of_every_size(tmp_path):
    """Sizes of every remainder by the landmarks a side; a graph without its guards, as other formats keep none."""
    maps = small_maps(**TWO_STAGES)
    export_model(maps, tmp_path / "b.pt2", size=(64, 64), part="backbone")
    sides = [8 * n for n in range(8, 16)]
    differs(tmp_path / "b.pt2", maps, *((1, 3, side, 8 * 15) for side in sides))
    assert {side // 8 % 7 for side in sides} == set(range(7))
