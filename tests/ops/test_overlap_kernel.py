"""The fused kernels of overlapped heads against the equations: in Triton's interpreter everywhere, on a GPU if any."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crosshead.ops.overlap import overlapped_attention
from tolerances import GRADIENT, OUTPUT, assert_close

pytest.importorskip("triton", reason="Triton exists on Linux only")
from overlap_kernel_cases import SHAPES

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
FORMS = [
    "boolean mask",
    "additive mask of each image and head",
    "causal",
    "gains",
    "bias",
    "windows",
    "dropout",
]


@pytest.fixture(scope="module", params=DEVICES)
def results(request, tmp_path_factory):
    """Everything that the kernels made of the cases, from one process with the interpreter on the CPU."""
    path = tmp_path_factory.mktemp("kernel") / "results.pt"
    interpret = "1" if request.param == "cpu" else "0"
    environment = os.environ | {"TRITON_INTERPRET": interpret, "OMP_NUM_THREADS": "1"}
    here = Path(__file__).parent
    environment["PYTHONPATH"] = os.pathsep.join([*sys.path, str(here.parent)])
    command = [sys.executable, str(here / "overlap_kernel_cases.py"), request.param, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("case", [*map(str, SHAPES), "torch.bfloat16", "torch.float16", *FORMS, "captured"])
def test_kernels_equal_naive(results, case):
    (got, grads), (want, wants) = results[case]
    dtype = got.dtype
    assert_close(got, want, OUTPUT[dtype], "output")
    for number, (grad, wanted) in enumerate(zip(grads, wants, strict=True)):
        assert_close(grad, wanted, GRADIENT[dtype], f"gradient {number}")


def test_a_query_without_keys_attends_to_nothing(results):
    assert (results["boolean mask"][0][0][:, 4] == 0).all()


def test_the_share_that_is_dropped(results):
    (share, [most]), (expected, [factor]) = results["kept"]
    assert abs(share - expected) < 0.1 and torch.isclose(most, factor)


def test_second_derivatives_take_the_plain_form(results):
    (_, grads), (_, wants) = results["second derivatives"]
    for grad, wanted in zip(grads, wants, strict=True):
        assert_close(grad, wanted, GRADIENT[torch.float32])


def test_no_images_give_no_output_and_no_gradient(results):
    (out, grads), (want, wants) = results["no images"]
    assert out.shape == want.shape and [g.shape for g in grads] == [g.shape for g in wants]


@pytest.mark.parametrize(
    ("width", "dtype", "more", "message"),
    [
        (8, torch.bfloat16, {}, "expected tensors on a CUDA device, got cpu"),
        (8, torch.float32, {}, "expected float16 or bfloat16, got torch.float32"),
        (120, torch.bfloat16, {}, "expected overlapped heads of at most 128 channels, got 130"),
        (
            8,
            torch.bfloat16,
            dict(attn_mask=torch.zeros(1, 2, 5, 5, requires_grad=True)),
            r"expected a mask that gets no gradient; one of \(h, N, N\) goes into attn_bias",
        ),
    ],
)
def test_what_the_kernels_cannot_serve_is_named(width, dtype, more, message):
    zeros = torch.zeros(1, 2, 5, width, dtype=dtype)
    with pytest.raises(ValueError, match=f"backend='triton' can't serve this: .*{message}"):
        overlapped_attention(zeros, zeros, zeros, 5, backend="triton", **more)


@pytest.fixture(scope="module")
def offline():
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("the interpreter compiles nothing")
    module = pytest.importorskip("offline", reason="this Triton brings no assembler", exc_type=ImportError)
    try:
        module.overlapped("row_products", 16, 6, 90)
    except Exception as error:
        pytest.skip(f"Triton compiles nothing here: {error}")
    return module


# The rest is in ``python tests/ops/offline.py``, which takes minutes.
@pytest.mark.parametrize(
    ("name", "form", "sm"),
    [("attend", "", 80), ("grad_keys", "Swin", 90), ("grad_queries", "Swin", 90), ("grad_bias", "Swin", 80)],
)
def test_kernels_compile_for_gpus_that_are_not_there_without_spilling(offline, name, form, sm):
    found = offline.overlapped(name, 32, 8, sm, **offline.FORMS[form])
    assert found.spilt == 0 and found.registers <= 255 and found.shared <= 48 * 1024
