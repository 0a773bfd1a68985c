"""timm's model contract, for every model that this library registers; a new one joins by being registered."""

import copy

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import group_parameters

import crosshead.models  # noqa: F401 - registers the models
from tolerances import GRADIENT, OUTPUT, assert_close

PATTERNS = ["mohsa_*", "plain_*", "ivit_*"]
NAMES = [name for pattern in PATTERNS for name in timm.list_models(pattern)]
CLASSES = 7
# Models that arguments turn into others: a name for each -> its arguments.
FORMS = {"mohsa_cait_micro_patch4_32 as the authors'": dict(form="authors", weight_init="authors")}


def registered(name):
    return name.split()[0]


def side(name):
    """A side small enough to test quickly: what the model is for, or 64 in place of 224."""
    return min(timm.get_pretrained_cfg(registered(name)).input_size[-1], 64)


def create(name, *, whole=False, **options):
    """A model for a few small images: its widths and heads, and fewer blocks unless it is expected whole."""
    torch.manual_seed(0)
    if "cait" in name:  # LayerScale as small as in deep CaiTs hides what the blocks do
        options["init_values"] = 0.1
    if not whole and "micro" not in name:
        options |= {"depths": (1, 1, 2, 1)} if "swin" in name or "ivit" in name else {"depth": 3}
    options = dict(num_classes=CLASSES, img_size=side(name), in_chans=3) | FORMS.get(name, {}) | options
    return timm.create_model(registered(name), **options)


def images(name, channels=3, height=None, width=None):
    shape = (2, channels, height or side(name), width or side(name))
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def marked(name):
    """Small and base models are tiny ones with other numbers: they are part of ``make soak``."""
    return pytest.param(name, marks=pytest.mark.soak) if "_small_" in name or "_base" in name else name


@pytest.fixture(scope="module", params=[marked(name) for name in (*NAMES, *FORMS)])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    """One model a name, in evaluation mode, with fewer blocks; a test that changes its model takes ``own``."""
    return create(name).eval()


@pytest.fixture
def own(model):
    """A copy for a test to change: copying is quicker than drawing weights."""
    return copy.deepcopy(model)


@torch.no_grad()
def test_forward_and_its_parts(name):
    model, x = create(name, whole=True).eval(), images(name)
    logits = model(x)
    assert logits.shape == (2, CLASSES) and torch.isfinite(logits).all()
    features = model.forward_features(x)
    assert_close(model.forward_head(features), logits, OUTPUT[torch.float32])
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    assert model.num_features == model.head_hidden_size


@torch.no_grad()
def test_shapes_without_memory(name):
    """On the meta device, as one asks for shapes and sizes."""
    with torch.device("meta"):
        model = create(name, whole=True).eval()
        assert model(images(name).to("meta")).shape == (2, CLASSES)


def test_no_images_give_no_logits(name, model):
    if "swin" in name:
        pytest.skip(
            "timm's Swin takes no empty batch: it counts images by dividing what it has by the windows"
        )
    for differentiable in (False, True):
        with torch.set_grad_enabled(differentiable):
            assert model(images(name)[:0]).shape == (0, CLASSES)


def test_every_parameter_gets_a_gradient(name, own):
    model = own.train()
    (model(images(name)) * torch.arange(CLASSES)).sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # The softmax cancels the bias that talking heads add before it: a gradient of zero, and not a missing one.
    assert all(n.endswith("attn.proj_l.bias") for n in without)
    assert all(p.grad is not None for p in model.parameters())


@torch.no_grad()
def test_features_only(name):
    model = create(name, features_only=True, in_chans=1).eval()
    features = model(images(name, channels=1))
    assert len(features) == len(model.feature_info.channels())
    for feature, channels, reduction in zip(
        features, model.feature_info.channels(), model.feature_info.reduction(), strict=True
    ):
        grid = -(-side(name) // reduction)
        assert feature.shape == (2, channels, grid, grid)
    last = create(name, features_only=True, out_indices=(-1,), in_chans=1).eval()
    assert_close(last(images(name, channels=1))[0], features[-1], OUTPUT[torch.float32])


@torch.no_grad()
def test_forward_intermediates(name, model):
    x = images(name)
    final, maps = model.forward_intermediates(x, indices=1, norm=False)
    assert_close(final, model.forward_features(x), OUTPUT[torch.float32])
    assert len(maps) == 1 and maps[0].dim() == 4
    assert_close(
        model.forward_intermediates(x, indices=1, intermediates_only=True)[0], maps[0], OUTPUT[torch.float32]
    )


@torch.no_grad()
def test_reset_classifier(name, own):
    model = own
    model.reset_classifier(3)
    assert model(images(name)).shape == (2, 3) and model.num_classes == 3
    model.reset_classifier(0)
    assert model(images(name)).shape == (2, model.num_features)
    assert create(name, num_classes=0).eval()(images(name)).shape == (2, model.num_features)


@torch.no_grad()
def test_other_image_sizes(name, own):
    tall, wide = side(name) * 2, side(name)
    assert create(name, img_size=(tall, wide)).eval()(images(name, height=tall)).shape == (2, CLASSES)
    model = own
    if hasattr(model, "set_input_size"):
        model.set_input_size((tall, wide))
        assert model(images(name, height=tall)).shape == (2, CLASSES)


def test_checkpointing_changes_nothing(name, model):
    results = []
    for enable in (False, True):
        own = copy.deepcopy(model).train()
        own.set_grad_checkpointing(enable)
        logits = own(images(name))
        logits.square().sum().backward()
        results.append((logits, [p.grad for p in own.parameters()]))
    (want, want_grads), (got, got_grads) = results
    assert_close(got, want, OUTPUT[torch.float32])
    for got_grad, want_grad in zip(got_grads, want_grads, strict=True):
        assert_close(got_grad, want_grad, GRADIENT[torch.float32])


@torch.no_grad()
def test_weights_round_trip(name, model, own, tmp_path):
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    for parameter in own.parameters():
        parameter.add_(1.0)
    own.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(own(images(name)), model(images(name)))


def test_groups_and_decay(name, model):
    names = {n for n, _ in model.named_parameters()}
    assert set(model.no_weight_decay()) <= names | {"dist_token", "reg_token"}
    groups = group_parameters(model, model.group_matcher())
    assert sorted(n for group in groups.values() for n in group) == sorted(names)


def test_configuration(name, model):
    cfg = model.pretrained_cfg
    assert (
        cfg["architecture"] == registered(name)
        and cfg["num_classes"] == 1000
        and len(cfg["mean"]) == cfg["input_size"][0]
    )
    modules = dict(model.named_modules())
    classifiers = cfg["classifier"] if isinstance(cfg["classifier"], (tuple, list)) else [cfg["classifier"]]
    assert modules[cfg["first_conv"]].in_channels == 3
    assert all(modules[c].out_features == CLASSES for c in classifiers)


def test_drop_path_acts_in_training_only(name):
    model = create(name, drop_path_rate=0.5).train()
    torch.manual_seed(0)
    assert not torch.equal(model(images(name)), model(images(name)))
    model.eval()
    assert torch.equal(model(images(name)), model(images(name)))


@pytest.mark.parametrize("autocast", [True, False])
@torch.no_grad()
def test_bfloat16(name, own, autocast):
    model = own
    want = model(images(name))
    if autocast:
        with torch.autocast("cpu", torch.bfloat16):
            got = model(images(name))
    else:
        got = model.bfloat16()(images(name).bfloat16())
    # A whole network multiplies an operator's rounding; the direction of the logits stays.
    assert torch.cosine_similarity(got.float(), want).min() > 0.98
