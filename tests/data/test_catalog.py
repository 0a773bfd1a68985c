"""Data sets by name."""

import pytest

from crosshead.data.base import Splits
from crosshead.data.datasets import registry as catalog
from crosshead.recipe.schema import DataConfig


def test_an_unknown_name_gets_the_nearest_and_the_list() -> None:
    with pytest.raises(
        ValueError, match=r"no data set 'fashion_mnist'; did you mean fashion-mnist\? .*digits"
    ):
        catalog.open_splits(DataConfig(name="fashion_mnist"), seed=0)
    with pytest.raises(ValueError, match=r"no data set 'xyzzy'; known are .*digits"):
        catalog.open_splits(DataConfig(name="xyzzy"), seed=0)


def test_a_registered_data_set_is_opened_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_KNOWN", dict(catalog._KNOWN))

    @catalog.register_dataset("mine", "the digits again")
    def open_mine(data: DataConfig, *, seed: int) -> Splits:
        return catalog.open_splits(data.model_copy(update={"name": "digits"}), seed=seed)

    assert "mine" in catalog.dataset_names() and catalog.describe_dataset("mine") == "the digits again"
    assert len(catalog.open_splits(DataConfig(name="mine"), seed=0).train) > 1000
    with pytest.raises(ValueError, match="'digits' is registered already"):
        catalog.register_dataset("digits", "again")(open_mine)
