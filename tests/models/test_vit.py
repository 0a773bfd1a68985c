"""The ViTs: sizes of the paper, the schedule as an argument, the baselines, compile and export."""

import pytest
import timm
import torch

from compilers import COMPILERS
from crosshead.layers.schedule import PARADIGMS
from tolerances import OUTPUT, assert_close


def images(size=32, batch=2):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("size", "width", "head_dim"), [("tiny", 192, 16), ("small", 384, 32)])
def test_sizes_of_the_paper(size, width, head_dim):
    with torch.device("meta"):
        model = timm.create_model(f"plain_vit_{size}_patch16_224")
    attn = model.blocks[0].attn
    assert (model.embed_dim, len(model.blocks), attn.num_heads, attn.head_dim) == (width, 12, 12, head_dim)
    assert attn.qkv.bias is None


@pytest.mark.parametrize("overlap", [*PARADIGMS, "none", "constant:3", 0.25, [0, 1, 0, 2, 0, 3]])
def test_schedule_is_an_argument(overlap):
    model = timm.create_model("mohsa_vit_micro_patch4_32", overlap=overlap, num_classes=3)
    got = [block.attn.interaction.overlap for block in model.blocks]
    assert got == [r.options["overlap"] for r in model.swap_report.replaced] and len(got) == 6
    assert model(images()).shape == (2, 3)


def test_without_overlap_it_is_the_baseline():
    plain = timm.create_model("plain_vit_micro_patch4_32", num_classes=3).eval()
    model = timm.create_model("mohsa_vit_micro_patch4_32", num_classes=3, overlap="none").eval()
    model.load_state_dict(plain.state_dict())
    assert_close(model(images()), plain(images()), OUTPUT[torch.float32])


def test_schedule_for_another_depth():
    with pytest.raises(ValueError, match="lists 4 blocks and the model has 6"):
        timm.create_model("mohsa_vit_micro_patch4_32", overlap=[0, 1, 2, 3])


@torch.no_grad()
def test_dynamic_image_size():
    model = timm.create_model("mohsa_vit_micro_patch4_32", dynamic_img_size=True, num_classes=3).eval()
    assert model(torch.randn(1, 3, 48, 64)).shape == (1, 3)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_compiles_whole(compiler):
    model = timm.create_model("mohsa_vit_micro_patch4_32", num_classes=3, depth=2).eval()
    compiled = torch.compile(model, fullgraph=True, backend=compiler)
    assert_close(compiled(images()), model(images()), OUTPUT[torch.float32])


@torch.no_grad()
def test_exports_with_a_dynamic_batch():
    model = timm.create_model("mohsa_vit_micro_patch4_32", num_classes=3, depth=2).eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(model, (images(),), dynamic_shapes=({0: batch},))
    assert_close(program.module()(images(batch=5)), model(images(batch=5)), OUTPUT[torch.float32])


def test_library_needs_only_torch_and_timm():
    """Everything down to the models imports without the packages that training adds."""
    import subprocess
    import sys

    code = (
        "import sys; import crosshead; "
        "extra = {'pydantic', 'rich', 'tensorboard', 'matplotlib', 'sklearn'} & set(sys.modules); "
        "assert not extra, extra"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
