"""A few of what benchmarks/export_matrix.py exports in full, and PyTorch's own export in a user's hand."""

import pytest
import torch
from torch import nn

from crosshead.export.runtime import open_session
from export.export_cases import HOSTS, MODES, Case, cases, measure, on_host
from layers.every_pair import CASES
from tolerances import OUTPUT


def test_what_is_exported_are_hosts_of_the_conformance_suite():
    assert CASES.keys() == HOSTS.keys()
    assert {f"{host}, iha" for host in CASES} < dict(cases()).keys()


OTHERS = [
    pytest.param(name, marks=pytest.mark.soak) for name in ("ViT, iha", "CoAtNet, dcmha", "SAM 2, dcmha")
]


# Landmarks of rotations once had an operation that ONNX lacks.
@pytest.mark.parametrize("name", ["rotary ViT, half-split, imhsa", *OTHERS])
def test_any_number_of_images(name):
    found = measure(dict(cases())[name], MODES["any number"])
    assert found["difference"] <= OUTPUT[torch.float32] and found["shapes"] == 3, found


# Pooling, DINOv3's positions and landmarks of rotations once knew the traced size alone; windows want whole ones.
@pytest.mark.soak
@pytest.mark.parametrize("name", ["rotary ViT, half-split, imhsa", "upernet on iViT", "MaxViT, plain"])
def test_any_number_and_size(name):
    found = measure(dict(cases())[name], MODES["any number and size"])
    assert found.get("difference", 1) <= OUTPUT[torch.float32] and found["shapes"] >= 6, found


@pytest.mark.parametrize(
    "kind", ["iha", *(pytest.param(k, marks=pytest.mark.soak) for k in ("overlap", "dcmha"))]
)
def test_torchs_own_export_gives_the_same(kind, tmp_path):
    model, shape, _ = on_host("ViT", kind)
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    free = ({0: torch.export.Dim("batch")},)
    file = tmp_path / "m.onnx"
    torch.onnx.export(model.eval(), (images[:2],), file, dynamic_shapes=free, dynamo=True, verbose=False)
    session = open_session(file)
    (got,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        want = model(images)
    assert (torch.from_numpy(got) - want).abs().max() <= OUTPUT[torch.float32] * want.abs().max()


@pytest.mark.parametrize(
    "host", ["LeViT, convolutions", "GCViT", "Swin v2 of Reich", "NesT", "transformers' SigLIP 2"]
)
def test_a_case_computes(host):
    """Of each host's model, before its export is measured: what a case itself does not compute is no reason."""
    model, shape, _ = on_host(host, None)
    with torch.no_grad():
        assert len(model.eval()(torch.zeros(2, *shape))) == 2


def test_a_faulty_case_is_no_reason_why_there_is_no_file():
    def faulty():
        return Case(nn.Linear(4, 4), (1, 2, 3))

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        measure(faulty, ())
