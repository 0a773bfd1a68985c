"""What torchrun starts in the tests: RECIPE.json FOLDER, at a pace at which a test can hit it."""

import sys
import time
from pathlib import Path

import torch
from runs import Watcher

from crosshead.recipe.schema import Recipe
from crosshead.train import train

if __name__ == "__main__":
    torch.set_num_threads(1)
    recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
    slow = Watcher(lambda record: time.sleep(0.1))
    sys.exit(train(recipe, folder=Path(sys.argv[2]), callback=slow).exit_code)
