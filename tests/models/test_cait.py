"""CaiT: sizes of the paper, the schedule over the patch blocks, the swap, other image sizes, compile and export."""

import pytest
import timm
import torch
from timm.models.cait import ClassAttn

from compilers import COMPILERS
from crosshead import swap_attention
from crosshead.layers.hosts import TalkingHost
from crosshead.models.class_attention import TalkingClassAttention
from tolerances import OUTPUT, assert_close


def images(height=32, width=None, batch=2):
    return torch.randn(batch, 3, height, width or height, generator=torch.Generator().manual_seed(0))


def create(family="mohsa", **options):
    torch.manual_seed(0)
    return timm.create_model(f"{family}_cait_micro_patch4_32", **dict(num_classes=3) | options).eval()


@pytest.mark.parametrize(("size", "depth", "scale"), [("xxs12", 12, 0.1), ("xxs24", 24, 1e-5)])
def test_sizes_of_the_paper(size, depth, scale):
    model = timm.create_model(f"mohsa_cait_{size}_224")
    assert (model.embed_dim, len(model.blocks), len(model.blocks_token_only)) == (192, depth, 2)
    assert [block.attn.interaction.overlap for block in model.blocks] == list(range(depth))
    attn = model.blocks[3].attn
    assert (attn.num_heads, attn.head_dim, attn.qkv.bias) == (4, 48, None)
    assert attn.proj.in_features == 4 * (48 + 2 * 3)
    assert (model.blocks[0].gamma_1 == scale).all()


def test_class_blocks_stay_as_they_are():
    model = create(overlap="constant:3")
    assert all(type(block.attn) is TalkingHost for block in model.blocks)
    assert all(type(block.attn) is ClassAttn for block in model.blocks_token_only)
    untouched = [path for path, _ in model.swap_report.untouched]
    assert len(untouched) == 2 and all(path.startswith("blocks_token_only.") for path in untouched)


def test_form_of_the_authors():
    model = create(form="authors", overlap="constant:3")
    assert all(type(block.attn) is TalkingHost for block in model.blocks)
    assert all(type(block.attn) is TalkingClassAttention for block in model.blocks_token_only)
    mixing = [n for n, _ in model.named_parameters() if "proj_l" in n or "proj_w" in n]
    assert len(mixing) == 2 * (6 + 2) and not any(n.endswith("bias") for n in mixing)
    untouched = [path for path, _ in model.swap_report.untouched]
    assert len(untouched) == 2 and all(path.startswith("blocks_token_only.") for path in untouched)
    with pytest.raises(ValueError, match="form must be one of timm, authors, got 'lucid'"):
        create(form="lucid")


def test_schedule_is_an_argument():
    assert [b.attn.interaction.overlap for b in create(overlap="reversed/2+1").blocks] == [3, 3, 2, 2, 1, 1]
    with pytest.raises(ValueError, match="lists 2 blocks and the model has 6"):
        create(overlap=[1, 2])


def test_without_overlap_it_is_the_baseline():
    plain, model = create("plain"), create(overlap="none")
    model.load_state_dict(plain.state_dict())
    assert_close(model(images()), plain(images()), OUTPUT[torch.float32])


def test_swap_preserves_timms_model_and_trains_what_is_new():
    torch.manual_seed(0)
    model = timm.create_model("cait_xxs24_224", img_size=64, depth=3, num_classes=5, init_values=0.5).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    want, old = model(images(64)), {id(p) for p in model.parameters()}
    report = swap_attention(model, overlap=[0, 3, 7])
    assert [r.options["overlap"] for r in report.replaced] == [0, 3, 7]
    assert_close(model(images(64)), want, OUTPUT[torch.float32])
    model.train()(images(64)).square().sum().backward()
    new = {name: p for name, p in model.named_parameters() if id(p) not in old}
    assert len(new) == 2 + 2  # weights of projections, and gains, where heads overlap
    for name, parameter in new.items():
        assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_position_embedding_follows_the_image():
    """A grid twice as tall: the resampled model sees a doubled image much as the first one saw the original."""
    model = create(overlap=2)
    before = model.pos_embed.detach().clone()
    model.set_input_size((64, 32))
    assert model.pos_embed.shape == (1, 128, 96) and model(images(64, 32)).shape == (2, 3)
    model.set_input_size((32, 32))
    assert model.pos_embed.shape == before.shape
    assert torch.cosine_similarity(model.pos_embed.flatten(), before.flatten(), 0) > 0.8
    model.set_input_size(patch_size=2)
    assert model.pos_embed.shape == (1, 256, 96) and model.feature_info[0]["reduction"] == 2


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("form", ["timm", "authors"])
def test_compiles_whole_with_gradients(form, compiler):
    model = create(depth=1, depth_token_only=1, overlap=2, form=form)
    compiled = torch.compile(model, fullgraph=True, backend=compiler)
    assert_close(compiled(images()), model(images()), OUTPUT[torch.float32])
    compiled(images()).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("form", ["timm", "authors"])
@torch.no_grad()
def test_exports_with_a_dynamic_batch(form):
    model = create(depth=2, overlap=2, form=form)
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(model, (images(),), dynamic_shapes=({0: batch},))
    assert_close(program.module()(images(batch=5)), model(images(batch=5)), OUTPUT[torch.float32])
