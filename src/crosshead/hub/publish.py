"""From a model or a run to a repository of the hub: configuration, weights, and a card."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from crosshead.models.saved import save

from .card import MARK, card
from .repository import CARD, CONFIG, Repository, told


def push_to_hub(
    model_or_run: nn.Module | str | os.PathLike[str],
    repo: str,
    *,
    checkpoint: str = "best",
    classes: Sequence[str] | None = None,
    args: dict[str, Any] | None = None,
    private: bool = False,
    message: str | None = None,
) -> str:
    """Writes a model to Hugging Face's hub, so that ``crosshead.load("hf-hub:owner/name")`` gives it back.

    A card that someone else wrote stays; one of this function is renewed.

    Args:
        model_or_run: a model that ``crosshead.save`` takes, or the folder of a run that classifies.
        repo: ``owner/name``, made if it is not there; ``owner/name@branch`` for a branch that is.
        checkpoint: of a run: "best", "last" or a step's number.
        classes, args: of a model, as for ``crosshead.save``.
        private: whether a repository that is made is seen by its owner alone.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        ValueError: a model that can't be built again, or a hub that refuses or can't be reached.
    """
    from huggingface_hub import HfApi

    from crosshead import __version__

    repository = Repository.of(repo)
    api = HfApi(library_name="crosshead", library_version=__version__)
    with tempfile.TemporaryDirectory() as aside:
        folder = write_repository(
            model_or_run, aside, repo, checkpoint=checkpoint, classes=classes, args=args
        )
        with told(repository):
            api.create_repo(repository.name, private=private, exist_ok=True)
            if _has_another_card(api, repository):
                (folder / CARD).unlink()
            commit = api.upload_folder(
                repo_id=repository.name,
                folder_path=folder,
                revision=repository.revision,
                commit_message=message or f"Model, by crosshead {__version__}",
            )
    return str(commit.commit_url)


def write_repository(
    model_or_run: nn.Module | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    repo: str,
    *,
    checkpoint: str = "best",
    classes: Sequence[str] | None = None,
    args: dict[str, Any] | None = None,
) -> Path:
    """The files that ``push_to_hub`` sends, in a folder: ``config.json``, ``model.safetensors`` and ``README.md``.

    Arguments and errors as of ``push_to_hub``; ``crosshead.load(folder)`` reads it too.
    """
    folder, repository = Path(folder), Repository.of(repo)
    if isinstance(model_or_run, nn.Module):
        save(model_or_run, folder, args=args, classes=classes)
        text = card(model_or_run, folder / CONFIG, repository)
    else:
        from crosshead.train.inference import load_run, preparation_of

        from .run_card import known_of_run  # models alone are sent without what training needs

        trained = load_run(Path(model_or_run), checkpoint=checkpoint, device="cpu")
        if trained.task.targets != "label":
            raise ValueError(
                f"a run of task.name={trained.recipe.task.name} has no form on the hub that timm could build; send the "
                "file of `crosshead export`, or the run's folder"
            )
        save(trained.model, folder, preparation=preparation_of(trained))
        text = card(trained.model, folder / CONFIG, repository, known_of_run(trained))
    (folder / CARD).write_text(text, encoding="utf-8")
    return folder


def _has_another_card(api: Any, repository: Repository) -> bool:
    if not api.file_exists(repository.name, CARD, revision=repository.revision):
        return False
    there = api.hf_hub_download(repository.name, CARD, revision=repository.revision)
    return MARK not in Path(there).read_text(encoding="utf-8")
