"""Models of PyTorch, torchvision and transformers, whole: swapped, undone, saved, looked into, compiled."""

import copy
import pickle

import pytest
import torch
import torchvision
import transformers as hf
from torch import nn
from torchvision.models import VisionTransformer
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

import crosshead
from crosshead import restore_attention, supported, swap_attention
from crosshead.heads import ablate_heads, attention_maps, gradient_maps, measure_heads
from crosshead.layers import INTERACTIONS, InteractingAttention
from crosshead.layers.registry import host_of
from crosshead.swap.sites import find_sites
from tolerances import OUTPUT, assert_close

VIT = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    image_size=32,
    patch_size=8,
)
CLASSES = dict(num_labels=5)
SWIN = dict(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4)
TV_SWIN = dict(
    patch_size=[2, 2], embed_dim=16, depths=[2, 1], num_heads=[2, 4], window_size=[4, 4], num_classes=5
)
MODELS = {
    "torchvision's ViT": lambda: VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=5),
    "torchvision's Swin": lambda: SwinTransformer(**TV_SWIN, stochastic_depth_prob=0.0),
    "torchvision's Swin v2": lambda: SwinTransformer(
        **TV_SWIN,
        stochastic_depth_prob=0.0,
        block=SwinTransformerBlockV2,
        downsample_layer=PatchMergingV2,
    ),
    "ViT": lambda: hf.ViTForImageClassification(hf.ViTConfig(**VIT, **CLASSES)),
    "DeiT": lambda: hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**VIT, **CLASSES)),
    "BEiT": lambda: hf.BeitModel(hf.BeitConfig(**VIT, use_shared_relative_position_bias=True)),
    "DINOv2": lambda: hf.Dinov2Model(hf.Dinov2Config(**VIT)),
    "DINOv2, registers": lambda: hf.Dinov2WithRegistersModel(
        hf.Dinov2WithRegistersConfig(**VIT, num_register_tokens=3)
    ),
    "DINOv3": lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**VIT, num_register_tokens=3)),
    "CLIP": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**VIT)),
    "SigLIP": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**VIT)),
    "Swin": lambda: hf.SwinModel(hf.SwinConfig(**SWIN, drop_path_rate=0.0)),
    "Swin v2": lambda: hf.Swinv2Model(hf.Swinv2Config(**SWIN, drop_path_rate=0.0)),
    "EoMT": lambda: hf.EomtForUniversalSegmentation(
        hf.EomtConfig(**VIT, num_blocks=1, num_queries=3, num_upscale_blocks=1)
    ),
    "TimmWrapper": lambda: hf.TimmWrapperForImageClassification(
        hf.TimmWrapperConfig(
            architecture="vit_tiny_patch16_224",
            model_args=dict(img_size=32, depth=2, embed_dim=24, num_heads=3, patch_size=8),
            num_labels=5,
        )
    ),
}
# Those of transformers' Swin are windows whose sizes its attention does not say.
GRIDS = [name for name in MODELS if name not in ("Swin", "Swin v2", "EoMT")]
WHOLE = [name for name in MODELS if name != "EoMT"]  # its queries stand among the tokens
OURS = [name for name in MODELS if "torchvision" not in name]


def create(name):
    """With random weights, so that nothing is preserved by being zero."""
    torch.manual_seed(0)
    model = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def images(seed=0):
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def outputs(model, given=None):
    found = model(images() if given is None else given)
    if isinstance(found, torch.Tensor):
        return found
    return next(found[key] for key in ("logits", "last_hidden_state", "masks_queries_logits") if key in found)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["overlap", "talking", "dcmha", "knocking"])
def test_outputs_are_preserved_and_what_is_new_learns(name, kind):
    model = create(name)
    want, old = outputs(model), {id(p) for p in model.parameters()}
    swap_attention(model, kind, **({"overlap": 2} if kind == "overlap" else {}))
    assert_close(outputs(model), want, OUTPUT[torch.float32], name)
    outputs(model).square().sum().backward()
    new = {n: p for n, p in model.named_parameters() if id(p) not in old}
    assert new
    for parameter_name, parameter in new.items():
        cancelled = parameter_name.endswith(INTERACTIONS[kind].cancelled) and INTERACTIONS[kind].cancelled
        assert cancelled or parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", MODELS)
def test_a_dry_run_changes_nothing_and_undone_it_is_what_it_was(name):
    model = create(name)
    want, before = outputs(model), state(model)
    classes = [type(site.module) for site in find_sites(model)]
    report = swap_attention(model, overlap=2, dry_run=True)
    assert [type(site.module) for site in find_sites(model)] == classes
    assert torch.equal(outputs(model), want)
    assert swap_attention(model, overlap=2) == report
    assert restore_attention(model) == len(classes)
    assert [type(site.module) for site in find_sites(model)] == classes
    after = state(model)
    assert before.keys() == after.keys() and all(torch.equal(after[key], before[key]) for key in before)
    assert torch.equal(outputs(model), want)


@pytest.mark.parametrize("name", MODELS)
def test_landmarks_lie_on_grids_that_are_known(name):
    model = create(name)
    assert ("imhsa" in supported(model)) == (name in GRIDS)
    if name in GRIDS:
        swap_attention(model, "imhsa", init="paper", landmarks=2)
        layer = find_sites(model)[0].module
        grids = []
        layer.register_forward_pre_hook(
            lambda m, args, kwargs: grids.append(m.heads_of(*args, **kwargs)), with_kwargs=True
        )
        outputs(model)
        assert grids[0].grid == (4, 4)
        assert grids[0].num_prefix_tokens == grids[0].tokens.shape[1] - 16


@pytest.mark.parametrize("name", WHOLE)
def test_heads_are_measured_and_drawn_before_and_after(name):
    """Before a swap as after one that exchanges nothing; and looking changes nothing."""
    model, swapped = create(name), create(name)
    want = outputs(model)
    swap_attention(swapped, overlap=0)
    plain, same = measure_heads(model, [images()]), measure_heads(swapped, [images()])
    assert len(plain) == len(same) > 1
    for one, other in zip(plain, same, strict=True):
        assert one.values.keys() == other.values.keys() and one.windows == other.windows
        assert_close(
            torch.tensor(one.values["entropy"]), torch.tensor(other.values["entropy"]), OUTPUT[torch.float32]
        )
    for one, other in zip(*(attention_maps(m, images()[:1], "mean") for m in (model, swapped)), strict=True):
        assert_close(one.maps, other.maps, OUTPUT[torch.float32])
    assert torch.equal(outputs(model), want)


@pytest.mark.parametrize("name", ["torchvision's ViT", "torchvision's Swin", "ViT", "TimmWrapper"])
def test_heads_are_taken_away_and_asked_for_a_class(name):
    def loss(model, pictures, targets):
        return nn.functional.cross_entropy(outputs(model, pictures), targets, reduction="none")

    model, swapped = create(name), create(name)
    swap_attention(swapped, overlap=0)
    found = [
        ablate_heads(m, lambda: [(images(), torch.tensor([0, 1]))], loss, blocks=[1])
        for m in (model, swapped)
    ]
    assert max(map(abs, found[0][0].output)) > 1e-4
    one, other = (1 + torch.tensor(each[0].output) for each in found)
    assert_close(one, other, OUTPUT[torch.float32])
    assert len(gradient_maps(model, images()[:1], 1, "mean")) == len(find_sites(model))


@pytest.mark.parametrize("name", OURS)
def test_a_model_of_transformers_comes_back_from_a_folder(name, tmp_path):
    model = create(name)
    swap_attention(model, "overlap", overlap=2)
    swap_attention(model, "talking", blocks=[0], init="paper")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    crosshead.save(model, tmp_path)
    assert torch.equal(outputs(crosshead.load(tmp_path)), outputs(model))


def test_what_transformers_would_save_without_the_interactions_is_refused(tmp_path):
    model = create("ViT")
    holder = nn.ModuleDict({"backbone": model})
    swap_attention(holder)
    for part in (model, model.vit, copy.deepcopy(model)):
        with pytest.raises(ValueError, match=r"crosshead\.save"):
            part.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    restore_attention(holder)
    model.save_pretrained(tmp_path)
    assert torch.equal(outputs(hf.ViTForImageClassification.from_pretrained(tmp_path)), outputs(model))


def test_a_model_of_torchvision_is_saved_by_its_name(tmp_path):
    model = torchvision.models.swin_t(weights=None, num_classes=5).eval()
    swap_attention(model, overlap=2, blocks=[0, 3])
    crosshead.save(model, tmp_path / "a", name="torchvision/swin_t", classes=list("abcde"))
    loaded = crosshead.load(tmp_path / "a")
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded(x), model(x))
    assert loaded.pretrained_cfg["label_names"] == list("abcde")
    assert loaded.pretrained_cfg["crop_pct"] == 224 / 232 and loaded.pretrained_cfg["mean"][0] == 0.485
    crosshead.save(loaded, tmp_path / "b")
    assert (tmp_path / "b" / "config.json").read_text() == (tmp_path / "a" / "config.json").read_text()


def test_a_classifier_without_a_linear_layer_is_saved_too(tmp_path):
    model = torchvision.models.squeezenet1_1(weights=None).eval()
    crosshead.save(model, tmp_path, name="torchvision/squeezenet1_1")
    assert torch.equal(
        crosshead.load(tmp_path)(images().repeat(1, 1, 2, 2)), model(images().repeat(1, 1, 2, 2))
    )


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda: create("torchvision's ViT"), None, "name='torchvision/vit_b_16'"),
        (lambda: create("torchvision's ViT"), "torchvision/vit_b_99", "no classifier 'vit_b_99'"),
        (lambda: create("torchvision's ViT"), "torchvision/vit_b_32", "is another model"),
        (lambda: create("ViT"), "torchvision/vit_b_32", "none of them"),
        (lambda: torch.nn.Sequential(torch.nn.Linear(3, 3)), None, "apply_interactions"),
    ],
)
def test_a_name_that_is_not_the_models_is_refused(make, name, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        crosshead.save(make(), tmp_path, name=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in OURS if name != "TimmWrapper"])  # whose model gives none
def test_attentions_are_given_where_transformers_gives_them(name):
    model = create(name)
    model.set_attn_implementation("eager") if name != "Swin v2" else None
    want = model(images(), output_attentions=True).attentions
    swap_attention(model, overlap=2)
    found = model(images(), output_attentions=True).attentions
    assert len(found) == len(want) > 0
    for one, other in zip(found, want, strict=True):
        assert_close(one, other, OUTPUT[torch.float32])
    assert model(images()).attentions is None if "attentions" in model(images()) else True


@pytest.mark.parametrize("name", MODELS)
def test_copies_half_precision_and_checkpoints(name):
    model = create(name)
    swap_attention(model, overlap=2)
    want = outputs(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(outputs(twin), want)
        assert type(find_sites(twin)[0].module) is type(find_sites(model)[0].module)
    half = outputs(copy.deepcopy(model).bfloat16(), images().bfloat16())
    assert half.dtype == torch.bfloat16 and half.isfinite().all()
    if getattr(model, "supports_gradient_checkpointing", False):
        gradients = []
        for checkpointing in (False, True):
            twin = copy.deepcopy(model).train()
            if checkpointing:
                twin.gradient_checkpointing_enable()
            torch.manual_seed(0)
            outputs(twin).square().sum().backward()
            gradients.append([p.grad for p in twin.parameters() if p.grad is not None])
        for one, other in zip(*gradients, strict=True):
            assert_close(one, other, OUTPUT[torch.float32])


@pytest.mark.parametrize("name", ["torchvision's ViT", "torchvision's Swin", "DINOv2", "DINOv3"])
def test_a_compiled_model_is_one_graph(name):
    model = create(name)
    swap_attention(model, overlap=2)
    with torch.no_grad():
        want = outputs(model)
        found = outputs(torch.compile(model, backend="aot_eager", fullgraph=True))
    assert_close(found, want, OUTPUT[torch.float32])


def encoder(batch_first=True, **options):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=batch_first, dropout=0.0, **options)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("masked", [None, "padding", "causal", "both"])
def test_encoder_layers_keep_their_outputs(batch_first, norm_first, masked):
    x = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(1))
    given = {}
    if masked in ("padding", "both"):
        given["src_key_padding_mask"] = torch.arange(7).expand(3, 7) >= torch.tensor([[7], [5], [3]])
    if masked in ("causal", "both"):
        given["mask"] = torch.ones(7, 7).triu(1).bool()
    model = encoder(batch_first, norm_first=norm_first)
    x = x if batch_first else x.transpose(0, 1)
    want = model.train()(x, **given)
    for train in (True, False):
        swapped = encoder(batch_first, norm_first=norm_first)
        swap_attention(swapped, overlap=2)
        assert_close(swapped.train(train)(x, **given), want, OUTPUT[torch.float32])


@torch.no_grad()
def test_the_fused_encoder_does_not_pass_over_the_interaction():
    """It reads the weights of ``self_attn`` and computes plain attention; this module must be asked instead."""
    x, model = torch.randn(3, 7, 32), encoder()
    want = model(x)
    swap_attention(model, overlap=2)
    for site in find_sites(model):
        site.module.borrow_gain.add_(1.0)
        site.module.out_proj.weight.add_(0.1)
    changed = model(x)
    assert (changed - want).abs().max() > 1e-2
    assert_close(changed, model.train()(x), OUTPUT[torch.float32])
    restore_attention(model.eval())
    assert all(type(site.module) is nn.MultiheadAttention for site in find_sites(model))
    assert all(site.module._qkv_same_embed_dim for site in find_sites(model))


def test_nested_tensors_are_refused_with_what_to_set():
    layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    swap_attention(model, overlap=2)
    padding = torch.arange(7).expand(3, 7) >= torch.tensor([[7], [5], [3]])
    with torch.no_grad(), pytest.raises(ValueError, match="use_nested_tensor = False"):
        model(torch.randn(3, 7, 32), src_key_padding_mask=padding)
    model.use_nested_tensor = False
    with torch.no_grad():
        assert model(torch.randn(3, 7, 32), src_key_padding_mask=padding).isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("shape", [(7, 32), (3, 7, 32)])
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("alike", [True, False])
def test_weights_of_multihead_attention_come_as_pytorch_gives_them(shape, average, alike):
    torch.manual_seed(0)
    holder = nn.ModuleDict({"attn": nn.MultiheadAttention(32, 4, batch_first=True)}).eval()
    x = torch.randn(shape)
    key = x if alike else x + 0.1 * torch.randn(shape)
    mask = torch.rand(7, 7) < 0.3
    mask.fill_diagonal_(False)
    given = dict(attn_mask=mask, average_attn_weights=average)
    want = holder.attn(x, key, x, **given)
    swap_attention(holder, overlap=2)
    for one, other in zip(holder.attn(x, key, x, **given), want, strict=True):
        assert one.shape == other.shape
        assert_close(one, other, OUTPUT[torch.float32])
    assert holder.attn(x, key, x, need_weights=False)[1] is None


def test_attention_to_other_tokens_is_left_alone():
    decoder = nn.TransformerDecoderLayer(32, 4, 48, batch_first=True)
    report = swap_attention(decoder)
    assert [r.path for r in report.replaced] == ["self_attn"]
    tower = hf.SiglipVisionModel(hf.SiglipVisionConfig(**VIT, vision_use_head=True))
    report = swap_attention(tower)
    assert len(report.replaced) == 2 and any("head" in path for path, _ in report.untouched)
    holder = nn.ModuleDict({"attn": nn.MultiheadAttention(32, 4, batch_first=True)})
    swap_attention(holder)
    with pytest.raises(ValueError, match="blocks="):
        holder.attn(torch.randn(1, 2, 32), torch.randn(1, 5, 32), torch.randn(1, 5, 32))


@pytest.mark.parametrize(
    ("options", "message"), [(dict(kdim=8), "width of their own"), (dict(add_bias_kv=True), "adds a token")]
)
def test_multihead_attention_of_another_build_is_refused(options, message):
    holder = nn.ModuleDict({"attn": nn.MultiheadAttention(32, 4, **options)})
    with pytest.raises(ValueError, match=message):
        swap_attention(holder)


def test_a_class_of_transformers_that_does_more_has_no_host():
    """A cache, a norm of queries, another projection: whatever this library doesn't know may change the outputs."""
    from transformers.models.llama.modeling_llama import LlamaAttention
    from transformers.models.sapiens2.modeling_sapiens2 import Sapiens2Attention
    from transformers.models.vit_mae.modeling_vit_mae import ViTMAEAttention

    assert host_of(LlamaAttention) is None and host_of(Sapiens2Attention) is None
    assert issubclass(host_of(ViTMAEAttention), InteractingAttention)


def test_a_mask_of_another_implementation_is_refused():
    model = create("ViT")
    swap_attention(model)
    with pytest.raises(ValueError, match="attn_implementation='sdpa'"):
        find_sites(model)[0].module(torch.randn(1, 17, 32), torch.ones(1, 17))


def test_siglip_2_takes_pictures_of_several_shapes():
    torch.manual_seed(0)
    options = {key: value for key, value in VIT.items() if key != "image_size"}
    model = hf.Siglip2VisionModel(hf.Siglip2VisionConfig(**options, num_patches=16)).eval()
    patches, real = torch.randn(2, 16, 192), torch.ones(2, 16, dtype=torch.int64)
    real[1, 12:] = 0
    given = (patches, real, torch.tensor([[4, 4], [3, 4]]))
    want = model(*given).last_hidden_state
    swap_attention(model, overlap=2)
    assert_close(model(*given).last_hidden_state, want, OUTPUT[torch.float32])


def test_both_towers_of_clip_or_the_one_of_pictures():
    torch.manual_seed(0)
    text = dict(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=50,
        eos_token_id=49, bos_token_id=48, pad_token_id=0,
    )  # fmt: skip
    model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=VIT, projection_dim=16)).eval()
    given = dict(input_ids=torch.tensor([[1, 5, 7, 49], [2, 3, 49, 49]]), pixel_values=images())
    want = model(**given)
    assert len(swap_attention(model.vision_model, overlap=2).replaced) == 2
    assert len(swap_attention(model, overlap=2).replaced) == 4
    found = model(**given)
    assert_close(found.text_embeds, want.text_embeds, OUTPUT[torch.float32])
    assert_close(found.image_embeds, want.image_embeds, OUTPUT[torch.float32])
