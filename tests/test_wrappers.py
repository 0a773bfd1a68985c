"""Models that others have put something around: torch.compile, data parallelism, FSDP, a module of the user's own."""

import copy

import pytest
import timm
import torch
import torch.distributed as dist
from timm.layers import set_fused_attn
from timm.utils import AttentionExtract
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

import crosshead
from crosshead import restore_attention, supported, swap_attention
from crosshead.heads import ablate_heads, attention_maps, gradient_maps, measure_heads
from crosshead.pages.embedding import embed_blocks
from crosshead.swap import interactions_of
from crosshead.swap.sites import find_sites
from tolerances import OUTPUT, assert_close


def vit(**options):
    torch.manual_seed(0)
    small = dict(img_size=32, patch_size=8, depth=2, embed_dim=24, num_heads=3, num_classes=5)
    return timm.create_model("vit_tiny_patch16_224", **{**small, **options}).eval()


def swapped():
    model = vit()
    swap_attention(model, overlap=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def images(seed=1, side=32):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


def loss(model, pictures, targets):
    return nn.functional.cross_entropy(model(pictures), targets, reduction="none")


def compiled(model):
    return run_once(torch.compile(model, backend="aot_eager"))


def compiled_in_place(model):
    model.compile(backend="aot_eager")
    return run_once(model)


def one_block_compiled(model):
    model.blocks[1] = torch.compile(model.blocks[1], backend="aot_eager")
    return run_once(model)


def run_once(model):
    with torch.no_grad():
        model(images())
    return model


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def looked_into(model):
    """All that reading heads gives, in one tensor."""
    measured = measure_heads(model, [images()])
    found = [torch.tensor(layer.values["entropy"]) for layer in measured]
    found += [layer.maps.flatten() for layer in attention_maps(model, images()[:1])]
    found += [layer.maps.flatten() for layer in gradient_maps(model, images()[:1], 1)]
    ablated = ablate_heads(model, lambda: [(images(), torch.tensor([0, 1]))], loss)
    found += [torch.tensor(layer.output + layer.importance) for layer in ablated]
    assert len(embed_blocks(model, images())) == len(measured) == 2
    return torch.cat(found)


@pytest.mark.parametrize("wrap", [compiled, compiled_in_place, one_block_compiled, nn.DataParallel])
def test_looking_and_saving_see_through(wrap, tmp_path):
    want = looked_into(swapped())
    model = wrap(swapped())
    assert_close(looked_into(model), want, OUTPUT[torch.float32])
    assert supported(model) == supported(swapped())
    assert interactions_of(model) == interactions_of(swapped())
    crosshead.save(model, tmp_path)
    assert torch.equal(crosshead.load(tmp_path)(images()), swapped()(images()))


def test_ddp_is_seen_through_and_not_changed(one_process, tmp_path):
    model = DistributedDataParallel(swapped())
    assert_close(looked_into(model), looked_into(swapped()), OUTPUT[torch.float32])
    assert interactions_of(model) == interactions_of(swapped())
    crosshead.save(model, tmp_path)
    assert torch.equal(crosshead.load(tmp_path)(images()), swapped()(images()))
    for act, what in ((swap_attention, "swap"), (restore_attention, "restore")):
        with pytest.raises(ValueError, match=rf"several processes \(DistributedDataParallel\).*{what} first"):
            act(model)


@pytest.mark.parametrize("kind", ["FSDP", "FSDP2"])
def test_sharded_models_are_measured_and_else_refused(kind, one_process, tmp_path):
    want = [layer.values["entropy"] for layer in measure_heads(swapped(), [images()])]
    model = swapped()
    if kind == "FSDP":
        model = FullyShardedDataParallel(model, device_id=torch.device("cpu"))
    else:
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        for part in (*model.blocks, model):
            fully_shard(part, mesh=mesh)
    found = [layer.values["entropy"] for layer in measure_heads(model, [images()])]
    assert_close(torch.tensor(found), torch.tensor(want), OUTPUT[torch.float32])
    assert interactions_of(model) == interactions_of(swapped())
    assert len(attention_maps(model, images()[:1])) == 2
    for act in (swap_attention, restore_attention):
        with pytest.raises(ValueError, match="wrapped for several processes"):
            act(model)
    for act in (
        supported,
        lambda model: gradient_maps(model, images()[:1], 1),
        lambda model: crosshead.save(model, tmp_path / "a"),
    ):
        with pytest.raises(ValueError, match=r"sharded.*get_model_state_dict"):
            act(model)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("wrap", [compiled, one_block_compiled])
def test_what_is_compiled_is_changed_inside(wrap):
    model = wrap(swapped())
    for act, what in ((swap_attention, "swap"), (restore_attention, "restore")):
        with pytest.raises(ValueError, match=rf"is compiled .*{what} what is inside, model._orig_mod"):
            act(model)
    assert len(find_sites(model)) == 2


def test_a_model_compiled_in_place_runs_what_came_later():
    model = compiled_in_place(vit())
    swap_attention(model, overlap=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        found = model(images())
        with torch.compiler.set_stance("force_eager"):
            assert_close(found, model(images()), OUTPUT[torch.float32])
        assert restore_attention(model) == 2
        assert (model(images()) - found).abs().max() > 1e-4


class Mine(nn.Module):
    """A backbone in a module of the user's own, which makes its pictures of something else."""

    def __init__(self, backbone, pictures):
        super().__init__()
        self.backbone, self.head, self.pictures = backbone, nn.Linear(5, 2), pictures

    def forward(self, given):
        return self.head(self.backbone(self.pictures(given)))


@pytest.mark.parametrize(
    ("pictures", "given"),
    [
        (lambda given: given["image"], {"image": images()}),
        (lambda videos: videos.flatten(0, 1), images()[:, None]),
        (lambda crops: torch.cat(crops), [images()[:1], images()[1:]]),
        (lambda pair: pair[0], (images(), None)),
    ],
    ids=["a dictionary", "videos", "crops", "beside a mask"],
)
def test_a_backbone_in_a_module_of_the_users_own_is_measured_as_it_is_alone(pictures, given):
    want = measure_heads(swapped(), [images()])
    found = measure_heads(Mine(swapped(), pictures), [(given, None)])
    assert [layer.tokens for layer in found] == [layer.tokens for layer in want] == [17, 17]
    for one, other in zip(found, want, strict=True):
        assert one.values["entropy"] == other.values["entropy"]


def test_two_backbones_with_class_token_and_without():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.far, self.near = vit(class_token=False, global_pool="avg"), vit(patch_size=16)

        def forward(self, x):
            return self.far(x) + self.near(x)

    model = Two()
    assert swap_attention(model, "imhsa", init="paper", landmarks=2).replaced
    measured = measure_heads(model, [images()])
    assert [layer.tokens for layer in measured] == [16, 16, 5, 5]
    assert ["prefix_share" in layer.values for layer in measured] == [False, False, True, True]


def test_what_gets_no_pictures_is_refused():
    blocks = nn.Sequential(*vit().blocks)
    with pytest.raises(ValueError, match=r"neither Sequential nor a module in it .*\(B, C, H, W\)"):
        measure_heads(blocks, [torch.randn(1, 16, 24)])


class OwnViT(nn.Module):
    """As ViTs are written by hand: patches of a convolution, nothing that says how many."""

    def __init__(self, patches):
        super().__init__()
        self.patch_embed, self.cls_token = patches, nn.Parameter(torch.zeros(1, 1, 24))
        self.blocks = copy.deepcopy(vit().blocks)

    def forward(self, x):
        x = self.patch_embed(x)
        x = x.flatten(2).transpose(1, 2) if x.dim() == 4 else x
        return self.blocks(torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1))


class Proj(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, 24, 8, 8)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Unfolded(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(192, 24)

    def forward(self, x):
        return self.linear(nn.functional.unfold(x, 8, stride=8).transpose(1, 2))


@pytest.mark.parametrize("patches", [lambda: nn.Conv2d(3, 24, 8, 8), Proj])
def test_patches_of_a_convolution_tell_their_grid(patches):
    model = OwnViT(patches()).eval()
    assert "imhsa" in supported(model)
    swap_attention(model, "imhsa", init="paper", landmarks=2)
    pictures = torch.randn(1, 3, 16, 48)
    model(pictures)
    assert find_sites(model)[0].module.token_grid() == (2, 6)
    assert [layer.maps.shape[1:] for layer in attention_maps(model, pictures)] == [(2, 6), (2, 6)]


def test_patches_that_tell_no_grid_are_named_with_all_that_is_wanted():
    model = OwnViT(Unfolded())
    with pytest.raises(
        ValueError, match=r"Unfolded does not tell.*grid_size and dynamic_feat_size.*proj.*grid="
    ):
        swap_attention(model, "imhsa", init="paper")
    assert len(swap_attention(model, overlap=2).replaced) == 2


def test_a_backbone_of_timms_remembers_a_swap_of_what_holds_it():
    """timm's save_for_hf of the backbone would leave the interactions out else."""
    holder = nn.ModuleDict({"backbone": vit(), "other": vit()})
    swap_attention(holder, overlap=2, blocks=[0, 1])
    assert holder["backbone"].pretrained_cfg["architecture"] == "crosshead_swapped"
    assert [each["path"] for each in holder["backbone"]._model_args["interactions"]] == [
        "blocks.0.attn",
        "blocks.1.attn",
    ]
    assert holder["other"].pretrained_cfg["architecture"] == "vit_tiny_patch16_224"
    restore_attention(holder)
    assert holder["backbone"].pretrained_cfg["architecture"] == "vit_tiny_patch16_224"


@pytest.mark.parametrize("kind", ["overlap", "talking"])
def test_timms_extractor_of_attention_is_given_the_weights(kind):
    set_fused_attn(False)
    try:
        model = vit()
        want = AttentionExtract(vit(), method="hook")(images())
        swap_attention(model, kind, **({"overlap": 2} if kind == "overlap" else {}))
        out = model(images())
        found = AttentionExtract(model, method="hook")(images())
        assert found.keys() == want.keys() and len(found) == 2
        for name in want:
            assert_close(found[name], want[name], OUTPUT[torch.float32])
        assert torch.equal(model(images()), out)
    finally:
        set_fused_attn(True)
