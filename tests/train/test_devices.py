"""Devices are chosen or named, and one that is not there is explained."""

import pytest
import torch

from crosshead.train.loop.devices import autocast, choose_device, deterministic_algorithms


def test_auto_prefers_cuda_then_mps_then_the_cpu(monkeypatch):
    for cuda, mps, wanted in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.cuda, "device_count", lambda cuda=cuda: 2 * cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert choose_device("auto").type == wanted


def test_each_process_of_a_machine_takes_its_own_cuda_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda", local_rank=1) == torch.device("cuda", 1)
    assert choose_device("cuda:0", local_rank=1) == torch.device("cuda", 0)
    with pytest.raises(ValueError, match="asks for CUDA device 2, and 2 are visible"):
        choose_device("cuda", local_rank=2)


@pytest.mark.parametrize("name", ["gpu", "xla", "cuda:x", "meta"])
def test_unknown_devices_are_explained(name):
    with pytest.raises(ValueError, match=f"'{name}'"):
        choose_device(name)


def test_mps_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="has no MPS"):
        choose_device("mps")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_computes_products_in_the_precision(precision, dtype):
    with autocast(precision, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_determinism_is_given_back():
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_algorithms(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
