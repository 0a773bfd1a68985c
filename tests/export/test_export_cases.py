"""A few of what benchmarks/export_matrix.py exports in full, and PyTorch's own export in a user's hand."""

import pytest
import torch

from crosshead.export.runtime import open_session
from export.export_cases import HOSTS, MODES, cases, measure, on_host
from layers.every_pair import CASES
from tolerances import OUTPUT


def test_what_is_exported_are_hosts_of_the_conformance_suite():
    assert CASES.keys() >= HOSTS.keys()
    assert {f"{host}, iha" for host in CASES} < dict(cases()).keys()


# Landmarks of rotations once had an operation that ONNX lacks.
@pytest.mark.parametrize("name", ["ViT, iha", "rotary ViT, imhsa"])
def test_any_number_of_images(name):
    found = measure(dict(cases())[name], MODES["any number"])
    assert found["difference"] <= OUTPUT[torch.float32] and found["shapes"] == 3, found


LONG = [pytest.param(name, marks=pytest.mark.soak) for name in ("upernet on iViT", "MaxViT, plain")]


# Pooling, DINOv3's positions and landmarks of rotations once knew the traced size alone; windows want whole ones.
@pytest.mark.parametrize("name", ["rotary ViT, half-split, imhsa", *LONG])
def test_any_number_and_size(name):
    found = measure(dict(cases())[name], MODES["any number and size"])
    assert found.get("difference", 1) <= OUTPUT[torch.float32] and found["shapes"] >= 6, found


@pytest.mark.parametrize("kind", ["overlap", pytest.param("dcmha", marks=pytest.mark.soak)])
def test_torchs_own_export_gives_the_same(kind, tmp_path):
    model, shape, _ = on_host("ViT", kind)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    torch.onnx.export(model.eval(), (images,), tmp_path / "m.onnx", dynamo=True, verbose=False)
    session = open_session(tmp_path / "m.onnx")
    (got,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        want = model(images)
    assert (torch.from_numpy(got) - want).abs().max() <= OUTPUT[torch.float32] * want.abs().max()
