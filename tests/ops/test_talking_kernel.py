"""The fused kernels of talking heads against the equations: in Triton's interpreter everywhere, on a GPU if any."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crosshead.ops.talking import talking_heads_attention
from tolerances import GRADIENT, OUTPUT, assert_close

pytest.importorskip("triton", reason="Triton exists on Linux only")
from talking_kernel_cases import SHAPES

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
FORMS = [
    "boolean mask",
    "additive mask of each image",
    "causal, scale",
    "bias, gain, mask",
    "dropout",
    "captured",
]
PRE_BIAS = 2  # cancelled by the softmax


@pytest.fixture(scope="module", params=DEVICES)
def results(request, tmp_path_factory):
    """Everything that the kernels made of the cases, from one process with the interpreter on the CPU."""
    path = tmp_path_factory.mktemp("kernel") / "results.pt"
    interpret = "1" if request.param == "cpu" else "0"
    environment = os.environ | {"TRITON_INTERPRET": interpret, "OMP_NUM_THREADS": "1"}
    here = Path(__file__).parent
    environment["PYTHONPATH"] = os.pathsep.join([*sys.path, str(here.parent)])
    command = [sys.executable, str(here / "talking_kernel_cases.py"), request.param, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("case", [*map(str, SHAPES), "torch.bfloat16", "torch.float16", *FORMS])
def test_kernels_equal_naive(results, case):
    (got, grads), (want, wants) = results[case]
    dtype = got.dtype
    assert_close(got, want, OUTPUT[dtype], "output")
    for number, (grad, wanted) in enumerate(zip(grads, wants, strict=True)):
        if "dropout" not in case and number == PRE_BIAS:
            assert grad.abs().max() == 0
        elif wanted.abs().max() < 1e-12:  # of what one token attends with
            assert grad.abs().max() < GRADIENT[dtype]
        else:
            assert_close(grad, wanted, GRADIENT[dtype], f"gradient {number}")


def test_a_query_without_keys_attends_to_nothing(results):
    assert (results["boolean mask"][0][0][:, 4] == 0).all()


def test_the_share_that_is_dropped(results):
    for case in ("kept", "kept in chunks"):
        (share, [most]), (expected, [factor]) = results[case]
        assert abs(share - expected) < 0.1 and torch.isclose(most, factor)


def test_second_derivatives_take_the_plain_form(results):
    (_, grads), (_, wants) = results["second derivatives"]
    for number, (grad, wanted) in enumerate(zip(grads, wants, strict=True)):
        if number != PRE_BIAS:
            assert_close(grad, wanted, GRADIENT[torch.float32])


def test_no_images_give_no_output_and_no_gradient(results):
    (out, grads), (want, wants) = results["no images"]
    assert out.shape == want.shape and [g.shape for g in grads] == [g.shape for g in wants]


def zeros(heads, width, tokens=5, dtype=torch.bfloat16):
    heads_of = torch.zeros(2, heads, tokens, width, dtype=dtype)
    return heads_of, heads_of, heads_of, torch.eye(heads), None, torch.eye(heads), None


@pytest.mark.parametrize(
    ("operands", "more", "message"),
    [
        (zeros(2, 8), {}, "expected tensors on a CUDA device, got cpu"),
        (zeros(2, 8, dtype=torch.float32), {}, "expected float16 or bfloat16, got torch.float32"),
        (zeros(17, 8), {}, "expected at most 16 heads, got 17"),
        (
            zeros(9, 40),
            {},
            "expected at most 512 channels in a tile of all heads, each number a power of two, got 1024",
        ),
        (
            zeros(2, 8),
            dict(attn_mask=torch.zeros(5, 5, requires_grad=True)),
            "expected a mask that gets no gradient; what heads learn goes into attn_bias",
        ),
        (
            zeros(2, 8),
            dict(attn_bias=torch.zeros(2, 2, 5, 5)),
            r"expected a bias that all images share, \(h, N, N\)",
        ),
    ],
)
def test_what_the_kernels_cannot_serve_is_named(operands, more, message):
    with pytest.raises(ValueError, match=f"backend='triton' can't serve this: .*{message}"):
        talking_heads_attention(*operands, backend="triton", **more)


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
    ("name", "heads", "width", "form", "sm"),
    [("attend", 4, 48, "", 80), ("grad_keys", 4, 48, "", 90)],
)
def test_kernels_compile_for_gpus_that_are_not_there_without_spilling(offline, name, heads, width, form, sm):
    found = offline.talking_heads(name, heads, width, sm, **offline.TALKING_FORMS[form])
    assert found.spilt == 0 and found.registers <= 255 and found.shared <= 99 * 1024
