"""Swin: sizes, the schedule over all stages, the swap, other windows, compile and export."""

import pytest
import timm
import torch

from compilers import COMPILERS
from crosshead import swap_attention
from crosshead.layers.hosts import WindowHost
from tolerances import OUTPUT, assert_close


def images(height=32, width=None, batch=2):
    return torch.randn(batch, 3, height, width or height, generator=torch.Generator().manual_seed(0))


def create(family="mohsa", **options):
    torch.manual_seed(0)
    return timm.create_model(f"{family}_swin_micro_patch2_window4_32", **dict(num_classes=3) | options).eval()


def blocks(model):
    return [block for stage in model.layers for block in stage.blocks]


@pytest.mark.parametrize(
    ("size", "width", "depths", "heads"),
    [
        ("tiny", 96, [2, 2, 6, 2], [3, 6, 12, 24]),
        ("small", 96, [2, 2, 18, 2], [3, 6, 12, 24]),
        ("base", 128, [2, 2, 18, 2], [4, 8, 16, 32]),
    ],
)
def test_sizes_and_the_count_of_blocks_over_all_stages(size, width, depths, heads):
    with torch.device("meta"):
        model = timm.create_model(f"mohsa_swin_{size}_patch4_window7_224")
    assert model.embed_dim == width and [len(stage.blocks) for stage in model.layers] == depths
    attns = [block.attn for block in blocks(model)]
    assert [attn.interaction.overlap for attn in attns] == list(range(sum(depths)))
    assert all((a.head_dim, a.window_size) == (32, (7, 7)) and a.qkv.bias is not None for a in attns)
    assert [stage.blocks[0].attn.num_heads for stage in model.layers] == heads
    last = attns[-1]
    assert last.proj.in_features == heads[-1] * (32 + 2 * (sum(depths) - 1))


def test_schedule_is_an_argument():
    got = [block.attn.interaction.overlap for block in blocks(create(overlap="reversed/2"))]
    assert got == [2, 2, 1, 1, 0, 0]
    with pytest.raises(ValueError, match="overlap of 17 in block 0 of 6, whose heads are 16 wide"):
        create(overlap=17)


def test_without_overlap_it_is_the_baseline():
    plain, model = create("plain"), create(overlap="none")
    model.load_state_dict(plain.state_dict())
    assert_close(model(images()), plain(images()), OUTPUT[torch.float32])


@pytest.mark.parametrize("size", [(56, 56), (112, 56)])
def test_swap_preserves_timms_model_and_trains_what_is_new(size):
    """Shifted windows among them, with their masks."""
    torch.manual_seed(0)
    options = dict(img_size=size, depths=(2, 2), num_heads=(3, 6), num_classes=5, drop_path_rate=0.0)
    model = timm.create_model("swin_tiny_patch4_window7_224", **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    assert any(block.attn_mask is not None for block in blocks(model))
    want, old = model(images(*size)), {id(p) for p in model.parameters()}
    report = swap_attention(model, overlap="index")
    assert [r.options["overlap"] for r in report.replaced] == [0, 1, 2, 3] and not report.untouched
    assert all(type(block.attn) is WindowHost for block in blocks(model))
    assert_close(model(images(*size)), want, OUTPUT[torch.float32])
    model.train()(images(*size)).square().sum().backward()
    new = {name: p for name, p in model.named_parameters() if id(p) not in old}
    assert len(new) == 3 + 3  # weights of projections, and gains, where heads overlap
    for name, parameter in new.items():
        assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_other_windows_are_those_of_timms_model():
    """Set to another size, the swapped model still gives what timm's gives there: the bias tables are resampled."""
    plain, model = create("plain"), create("plain")
    swap_attention(model, overlap=3)
    for m in (plain, model):
        m.set_input_size((48, 64), window_size=(6, 8))
    assert blocks(model)[0].attn.window_size == (6, 8)
    assert_close(model(images(48, 64)), plain(images(48, 64)), OUTPUT[torch.float32])


@pytest.mark.parametrize("compiler", COMPILERS)
def test_compiles_whole_with_gradients(compiler):
    """One block with a mask: compiling more of the same only takes longer."""
    model = create(depths=(2,), num_heads=(3,), overlap=2)
    model.layers[0].blocks = model.layers[0].blocks[1:]
    compiled = torch.compile(model, fullgraph=True, backend=compiler)
    assert_close(compiled(images()), model(images()), OUTPUT[torch.float32])
    compiled(images()).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@torch.no_grad()
def test_exports_with_a_dynamic_batch():
    model = create(depths=(1, 1), num_heads=(3, 6), overlap=2)
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(model, (images(),), dynamic_shapes=({0: batch},))
    assert_close(program.module()(images(batch=5)), model(images(batch=5)), OUTPUT[torch.float32])
