"""The fused kernels against the equations: in Triton's interpreter everywhere, on a GPU where there is one."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from interactive_kernel_cases import CASES
from test_interactive import assert_agrees

from crosshead.ops.interactive import interactive_attention
from tolerances import GRADIENT, assert_close

pytest.importorskip("triton", reason="Triton exists on Linux only")
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.fixture(scope="module", params=DEVICES)
def results(request, tmp_path_factory):
    """Everything that the kernels made of the cases, from one process with the interpreter on the CPU."""
    path = tmp_path_factory.mktemp("kernel") / "results.pt"
    environment = os.environ | {
        "TRITON_INTERPRET": "1" if request.param == "cpu" else "0",
        "OMP_NUM_THREADS": "1",
    }
    tests = Path(__file__).parents[1]
    environment["PYTHONPATH"] = os.pathsep.join([*sys.path, str(tests)])
    command = [
        sys.executable,
        str(Path(__file__).parent / "interactive_kernel_cases.py"),
        request.param,
        str(path),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("case", [*CASES, "one matrix", "captured"])
def test_kernels_equal_naive(results, case):
    got, want = results[case]
    assert_agrees(got, want, got[0].dtype)


def test_second_derivatives_take_the_plain_form(results):
    (got, _), (want, _) = results["second derivatives"]
    assert_close(got, want, GRADIENT[torch.float32])


def test_no_images_give_no_output_and_no_gradient(results):
    (out, grads), (want, wanted) = results["no images"]
    assert out.shape == want.shape and [g.shape for g in grads] == [g.shape for g in wanted]
    assert (grads[3] == 0).all() and (grads[4] == 0).all()


def test_kernels_are_launched_on_the_device_of_their_operands(monkeypatch):
    """Triton launches on the current device; a model on cuda:1 is called while cuda:0 is current."""
    from crosshead.ops.interactive.fused import on_its_device

    current = [torch.device("cuda:0")]

    @contextmanager
    def switch(device):
        current.append(device)
        yield
        current.pop()

    class Operand:
        device = torch.device("cuda:1")

    monkeypatch.setattr(torch.cuda, "device", switch)
    assert on_its_device(lambda x, y: (current[-1], y))(Operand(), 5) == (torch.device("cuda:1"), 5)
    assert on_its_device(lambda x: current[-1])(torch.zeros(1)) == torch.device("cuda:0")
    assert current == [torch.device("cuda:0")]


@pytest.mark.parametrize(
    ("shape", "change", "message"),
    [
        ((1, 2, 9, 8), {}, "expected tensors on a CUDA device, got cpu"),
        ((1, 2, 9, 80), {}, "expected at most 64 channels a head, got 80"),
        ((1, 65, 9, 8), {}, "expected at most 64 heads, got 65"),
        ((1, 2, 81, 8), dict(grid=(9, 9), landmarks=9), "expected at most 64 landmarks, got 81"),
        ((1, 2, 9, 8), dict(dropout_p=0.1), "expected no dropout, got 0.1"),
    ],
)
def test_what_the_kernels_cannot_serve_is_named(shape, change, message):
    zeros = torch.zeros(shape)
    with pytest.raises(ValueError, match=f"backend='triton' can't serve this: .*{message}"):
        interactive_attention(zeros, zeros, zeros, **(dict(grid=(3, 3), backend="triton") | change))


def test_double_precision_is_named():
    zeros = torch.zeros(1, 2, 9, 8, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"expected float16 or bfloat16, got torch\.float64"):
        interactive_attention(zeros, zeros, zeros, (3, 3), backend="triton")
