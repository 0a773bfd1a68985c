"""Names of 0.1 serve for one version, and say what takes their place."""

import pytest
from runs import tiny_recipe

import crosshead.train
from crosshead.recipe import RecipeError, load_recipe


@pytest.mark.parametrize(
    ("old", "new"), [("Observer", "Callback"), ("Trained", "LoadedRun"), ("load_trained", "load_run")]
)
def test_a_name_of_0_1_warns_of_the_new_one(old, new):
    with pytest.warns(FutureWarning, match=new):
        assert getattr(crosshead.train, old) is getattr(crosshead.train, new)


def test_train_takes_an_observer_for_a_callback(tmp_path):
    class Ends:
        """Records how a run ends."""

        status = None

        def on_start(self, info): ...

        def on_step(self, record): ...

        def on_eval(self, record): ...

        def on_event(self, record): ...

        def on_end(self, record):
            self.status = record.status

    watcher, recipe = Ends(), tiny_recipe()
    with pytest.warns(FutureWarning, match="callback"):
        crosshead.train.train(recipe, folder=tmp_path / "run", observer=watcher)
    assert watcher.status == "finished"


def test_the_old_key_is_read_and_both_are_refused(tmp_path):
    (tmp_path / "old.yaml").write_text("base: digits\nlog: {observers: [mlflow]}\n")
    assert load_recipe(str(tmp_path / "old.yaml")).log.callbacks == ["mlflow"]
    (tmp_path / "both.yaml").write_text("base: digits\nlog: {observers: [mlflow], callbacks: [wandb]}\n")
    with pytest.raises(RecipeError, match=r"log\.callbacks"):
        load_recipe(str(tmp_path / "both.yaml"))
