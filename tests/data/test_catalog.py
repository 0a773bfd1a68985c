"""Data sets by name."""

import pytest

from crosshead.data.base import Splits
from crosshead.data.datasets import registry as catalog
from crosshead.data.datasets.held_out import HoldOut
from crosshead.recipe.schema import DataConfig
from opening import open_data


def test_an_unknown_name_gets_the_nearest_and_the_list() -> None:
    with pytest.raises(
        ValueError, match=r"no data set 'fashion_mnist'; did you mean fashion-mnist\? .*digits"
    ):
        open_data(DataConfig(name="fashion_mnist"), seed=0)
    with pytest.raises(ValueError, match=r"no data set 'xyzzy'; known are .*digits"):
        open_data(DataConfig(name="xyzzy"), seed=0)


def test_a_registered_data_set_is_opened_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(catalog.DATASETS, "mine", raising=False)

    @catalog.register_dataset("mine", "the digits again")
    def open_mine(data: DataConfig, *, hold: HoldOut) -> Splits:
        return open_data(data.model_copy(update={"name": "digits"}), seed=hold.seed)

    assert "mine" in catalog.dataset_names() and catalog.describe_dataset("mine") == "the digits again"
    assert len(open_data(DataConfig(name="mine"), seed=0).train) > 1000
    with pytest.raises(ValueError, match="'digits' is registered already"):
        catalog.register_dataset("digits", "again")(open_mine)
