"""Backbones of detectors and segmenters: their windows, their padding, and what is measured of them."""

import naive_measures as naive
import pytest
import timm
import torch

from crosshead.heads import head_layers, measure_heads, reading
from crosshead.heads.picture import attention_maps
from crosshead.models.pyramid import Maps, Pyramid
from crosshead.models.segmenters import SemanticFPN
from heads.small_models import images, randomised, windowed


def hierarchical(attn):
    torch.manual_seed(0)
    options = dict(depths=(1, 1, 1), dims=(8, 12, 16), num_heads=(1, 2, 2), attention_stages=(1, 2))
    model = timm.create_model("ivit_tiny", attn=attn, landmarks=2, num_classes=0, **options)
    return randomised(SemanticFPN(Pyramid(Maps(model), width=8), 3, width=32))


@pytest.mark.parametrize(
    ("kind", "options"),
    [(None, {}), ("overlap", {"overlap": "constant:2"}), ("talking", {}), ("imhsa", {"landmarks": 2})],
)
def test_windows_of_a_plain_vit_are_measured_without_what_fills_them_up(kind, options):
    """The grid of 4 x 4 makes four windows of 3 x 3; most of their tokens are no patch."""
    model, pictures = windowed(kind, **options), images(16)
    calls, outputs = {}, {}
    with (
        torch.no_grad(),
        reading(
            model,
            head_layers(model),
            lambda c: calls.update({c.layer.block: (c.places, c.weights())}),
            lambda layer, out, _: outputs.update({layer.block: out}),
        ),
    ):
        model(pictures)
    places, weights = calls[0]
    assert (places.windows, places.prefix, calls[1][0].windows) == (4, 1, 1)
    assert places.tokens.tolist()[1] == [3, -1, -1, 7, -1, -1, 11, -1, -1]
    found = measure_heads(model, [pictures])[0]
    similar, entropies, kept = [], [], []
    for image in range(2):
        rows = []
        for window in range(4):
            real = [i + 1 for i, token in enumerate(places.tokens[window]) if token >= 0]
            kept.append(outputs[0][4 * image + window, real])
            own = weights[4 * image + window][:, real][:, :, real]
            shares = own.double() if found.signed else naive.shares(own)
            rows.append((shares - shares.mean(-1, keepdim=True)).flatten(1))
            if len(real) > 1:
                a = naive.shares(own)
                entropies.append((-torch.special.xlogy(a, a).sum(-1) / torch.tensor(len(real)).log()).sum(-1))
        unit = torch.nn.functional.normalize(torch.cat(rows, 1), dim=-1)
        similar.append(unit @ unit.mT)
    near = dict(rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        torch.tensor(found.values["map_similarity"]).double(), torch.stack(similar).mean(0), **near
    )
    want = torch.stack(entropies).sum(0) / 32
    torch.testing.assert_close(torch.tensor(found.values["entropy"]).double(), want, **near)
    view = head_layers(model)[0].view
    start = view.interaction.head_width(8) // 2 - 4
    own = torch.cat(kept)[..., start : start + 8].transpose(0, 1)[None]
    torch.testing.assert_close(torch.tensor(found.values["cka"]).double(), naive.linear_cka(own), **near)


def test_a_query_in_a_window_sees_that_window():
    model, picture = windowed(), images(16, 1)
    first, last = attention_maps(
        model, picture, (14, 2)
    )  # the patch at row 0, column 3: alone with two others
    assert first.maps.shape == (3, 4, 4) and last.maps.isfinite().all()
    assert first.maps[0].isfinite().nonzero().tolist() == [[0, 3], [1, 3], [2, 3]]
    for query in ("cls", "mean"):
        assert all(layer.maps.isfinite().all() for layer in attention_maps(model, picture, query))


@pytest.mark.parametrize("attn", ["mhsa", "imhsa"])
def test_padding_belongs_to_the_grid(attn):
    """Pictures of 40 x 24 on a backbone whose maps want multiples of 16 are seen as 48 x 32."""
    model = hierarchical(attn)
    picture = torch.randn(2, 3, 40, 24, generator=torch.Generator().manual_seed(1))
    places = []
    with torch.no_grad(), reading(model, head_layers(model), lambda c: places.append(c.places)):
        out = model(picture)
    assert [(p.rows, p.columns, p.size) for p in places] == [(6, 4, (48, 32)), (3, 2, (48, 32))]
    mask = torch.zeros(2, 40, 24, dtype=torch.bool)
    mask[:, :16, :16] = True
    found = measure_heads(model, [(picture, mask)])
    assert all(-1 <= each <= 1 for layer in found for each in layer.values["alignment"])
    with torch.no_grad():
        assert torch.equal(out, model(picture))
