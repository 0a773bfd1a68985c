"""ONNX files: what varies in them, that they compute what the model does, what they tell, and what is refused."""

import json

import numpy as np
import onnx
import pytest
import timm
import torch

from crosshead import swap_attention
from crosshead.export import onnx_file
from crosshead.export.about import About
from crosshead.export.checks import TOLERANCE
from crosshead.export.onnx_file import export_onnx
from crosshead.export.prepare import normalised
from crosshead.export.runtime import open_session
from crosshead.models.detectors import build_detector
from crosshead.models.segmenters import build_segmenter
from models.dense_cases import small_maps

SMALL_IVIT = dict(depths=(1, 1), dims=(8, 12), num_heads=(1, 2), attention_stages=(1,))


def about(*size, **options):
    return About(
        size=size,
        mean=(0.5, 0.4, 0.3),
        std=(0.25, 0.2, 0.3),
        classes=tuple("abcd"),
        task="classify",
        answers="classes",
        **options,
    )


def vit(**options):
    torch.manual_seed(0)
    small = dict(img_size=32, embed_dim=96, depth=1, num_heads=2, overlap=3, num_classes=4)
    return timm.create_model("mohsa_vit_tiny_patch16_224", **small | options).eval()


GRAPHS = {}


@pytest.fixture
def traced_once(monkeypatch):
    """What ``vit`` makes is traced once for all tests that ask for the same graph of it."""
    make = onnx_file._Tracing.proto

    def proto(self, names):
        key = repr((self.plain, self.about.input, self.about.varying, self.about.size))
        if key not in GRAPHS:
            GRAPHS[key] = make(self, names).SerializeToString()
        return onnx.ModelProto.FromString(GRAPHS[key])

    monkeypatch.setattr(onnx_file._Tracing, "proto", proto)


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def same(file, model, shapes, told, *, task=lambda logits: logits):
    """The file's outputs are the model's, on pictures that the export has not seen."""
    session = open_session(file)
    for shape in shapes:
        given = pixels(*shape)
        seen = np.stack([normalised(each, told) for each in given])
        (got, *_) = session.run(None, {"images": given if told.input == "pixels" else seen})
        with torch.no_grad():
            want = task(model.eval()(torch.from_numpy(seen))).numpy()
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), shape


def test_a_classifier_takes_pixels_of_any_number_of_pictures_and_gives_probabilities(tmp_path):
    model = vit()
    written = export_onnx(
        model,
        tmp_path / "v.onnx",
        about(32, 32, input="pixels", outputs="probabilities", model="vit", resize=36),
    )
    assert written.inputs == ("batch", 3, 32, 32) and written.outputs == ((1, 4),)
    assert written.difference < 1e-5 and [batch for batch, *_ in written.shapes] == [1, 2, 5]
    same(
        tmp_path / "v.onnx",
        model,
        [(1, 3, 32, 32), (7, 3, 32, 32)],
        written.about,
        task=lambda x: x.softmax(-1),
    )
    assert [each.name for each in tmp_path.iterdir()] == ["v.onnx"]


def test_the_file_tells_of_itself_and_not_of_this_machine(tmp_path, traced_once):
    told = about(32, 32, resize=36, recipe="abc")
    written = export_onnx(vit(), tmp_path / "v.onnx", told)
    proto = onnx.load(tmp_path / "v.onnx")
    entries = {each.key: each.value for each in proto.metadata_props}
    assert json.loads(entries["classes"]) == list("abcd") and json.loads(entries["std"]) == [0.25, 0.2, 0.3]
    assert json.loads(entries["size"]) == [32, 32] and json.loads(entries["recipe"]) == "abc"
    assert About.of(entries, "v.onnx") == written.about
    axes = proto.graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_param or each.dim_value for each in axes] == ["batch", 3, 32, 32]
    assert __file__.encode() not in (tmp_path / "v.onnx").read_bytes()
    assert b".py" not in (tmp_path / "v.onnx").read_bytes()


@pytest.mark.soak
@pytest.mark.parametrize("landmarks", [3, 4])
def test_landmarks_and_padding_are_those_of_every_size(tmp_path, landmarks):
    """Sizes of every remainder by the landmarks a side."""
    torch.manual_seed(0)
    model = timm.create_model("ivit_tiny", num_classes=4, landmarks=landmarks, **SMALL_IVIT).eval()
    written = export_onnx(model, tmp_path / "i.onnx", about(40, 48), varying=("batch", "size"))
    assert written.inputs == ("batch", 3, "height", "width") and written.about.multiple == 8
    sides = [written.about.smallest + 8 * n for n in range(8)]
    same(tmp_path / "i.onnx", model, [(1, 3, side, sides[-i]) for i, side in enumerate(sides)], written.about)


@pytest.mark.parametrize("kind", ["talking", pytest.param("dcmha", marks=pytest.mark.soak)])
def test_shifted_windows_take_any_number_of_pictures(kind, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model(
        "plain_swin_micro_patch2_window4_32", depths=(2,), num_heads=(3,), num_classes=4
    )
    swap_attention(model, kind, init="paper")
    written = export_onnx(model, tmp_path / "s.onnx", about(32, 32))
    same(tmp_path / "s.onnx", model, [(3, 3, 32, 32)], written.about)


def test_a_segmenter_takes_pictures_of_any_size(tmp_path):
    """Of every remainder by the landmarks a side, too, of which its backbone has three."""
    model = build_segmenter("semantic_fpn", small_maps(**SMALL_IVIT), 5, width=32, pyramid={"width": 8})
    written = export_onnx(model, tmp_path / "s.onnx", about(64, 80, crop="none"), varying=("batch", "size"))
    assert written.inputs == ("batch", 3, "height", "width") and written.about.multiple == 8
    sides = [written.about.smallest + 8 * n for n in range(8)]
    shapes = [(1, 3, side, sides[-i]) for i, side in enumerate(sides)]
    same(tmp_path / "s.onnx", model, [*shapes, (3, 3, 96, 80)], written.about)


@pytest.mark.soak
def test_a_detector_gives_logits_and_boxes_and_its_pyramid_maps(tmp_path):
    model = build_detector("retinanet", small_maps(**SMALL_IVIT), 4, pyramid={"width": 8})
    written = export_onnx(model, tmp_path / "d.onnx", about(64, 64, crop="none"))
    assert [len(shape) for shape in written.outputs] == [3, 3] and written.outputs[1][-1] == 4
    assert export_onnx(model, tmp_path / "p.onnx", about(64, 64), part="pyramid").inputs[0] == "batch"


def test_of_detectors_those_of_two_stages_have_one_size_and_float32(tmp_path):
    staged = build_detector("faster_rcnn", small_maps(**SMALL_IVIT), 4, pyramid={"width": 8}, box_width=8)
    for options, said in (
        ({"varying": ("batch", "size")}, r"takes images of one size.*--dynamic batch.*--pyramid"),
        ({"precision": "int8"}, r"is fp32: in int8 its first stage.*--pyramid"),
    ):
        with pytest.raises(ValueError, match=said):
            export_onnx(staged, tmp_path / "r.onnx", about(64, 64), **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_are_smaller_and_near(precision, tmp_path, traced_once):
    model = vit()
    whole = export_onnx(model, tmp_path / "w.onnx", about(32, 32))
    written = export_onnx(model, tmp_path / "p.onnx", about(32, 32), precision=precision)
    assert written.about.precision == precision and 0 < written.of_precision < 0.2
    assert written.file.stat().st_size < 0.65 * whole.file.stat().st_size
    assert written.difference <= TOLERANCE["fp32"]


def test_what_differs_or_cannot_be_leaves_no_file(tmp_path, monkeypatch, traced_once):
    kept = tmp_path / "kept.onnx"
    kept.write_bytes(b"before")
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        export_onnx(vit(), tmp_path / "v.pt2", about(32, 32))
    with pytest.raises(ValueError, match="does not take images of 40 x 40"):
        export_onnx(vit(), kept, about(40, 40))
    with pytest.raises(ValueError, match=r"no size varies.*dynamic_img_size"):
        export_onnx(vit(), kept, about(32, 32), varying=("batch", "size"))
    describe = onnx_file._describe

    def other(proto, told):
        describe(proto, told)
        for tensor in proto.graph.initializer:
            if tensor.data_type == 1 and tensor.raw_data:
                tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) * 1.01).tobytes()

    monkeypatch.setattr(onnx_file._Tracing, "proto", _spoiled(onnx_file._Tracing.proto, other))
    with pytest.raises(ValueError, match=r"differs from the model by .*; nothing was written"):
        export_onnx(vit(), kept, about(32, 32))
    assert kept.read_bytes() == b"before" and [each.name for each in tmp_path.iterdir()] == ["kept.onnx"]


def _spoiled(made, spoil):
    def proto(self, names):
        found = made(self, names)
        spoil(found, self.about)
        return found

    return proto
