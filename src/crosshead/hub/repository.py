"""Talking to the hub: names of repositories, what is read from one, and its errors in one sentence."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PREFIX = "hf-hub:"
CONFIG, CARD = "config.json", "README.md"
WEIGHTS = "model.safetensors", "crosshead.safetensors"  # one of them, see ``crosshead.models.saved``
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


class Repository(NamedTuple):
    """``owner/name``, and a branch, tag or commit of it; None for the branch that the hub shows."""

    name: str
    revision: str | None = None

    @classmethod
    def of(cls, word: str) -> "Repository":
        """Of ``owner/name`` or ``owner/name@revision``, behind ``hf-hub:`` or not; ValueError for anything else."""
        found = _NAME.fullmatch(word.removeprefix(PREFIX))
        if found is None:
            raise ValueError(
                f"{word!r} names no repository of the hub: expected owner/name or owner/name@revision, such as "
                "hf-hub:me/pets_mohsa"
            )
        return cls(found[1], found[2])


def fetch(word: str) -> Path:
    """A folder with the configuration and the weights of a repository, as ``crosshead.models.saved`` reads them.

    Two files of one commit are taken, JSON and safetensors; nothing of them is run, and no other address that they name
    is followed. They stay in huggingface_hub's cache, from where they are taken when the hub can't be reached.

    Raises:
        ValueError: no such repository or revision, one that is closed to this user, or a hub that can't be reached.
    """
    from huggingface_hub import snapshot_download

    repository = Repository.of(word)
    with told(repository):
        folder = snapshot_download(
            repository.name, revision=repository.revision, allow_patterns=[CONFIG, *WEIGHTS]
        )
    wanted = ((CONFIG,), WEIGHTS)
    missing = [names[0] for names in wanted if not any((Path(folder) / name).is_file() for name in names)]
    if missing:
        raise ValueError(
            f"{word} has no {' and no '.join(missing)}: expected what crosshead.push_to_hub wrote; a model of timm's "
            f"is for timm.create_model('{PREFIX}{repository.name}', pretrained=True)"
        )
    return Path(folder)


@contextlib.contextmanager
def told(repository: Repository) -> Iterator[None]:
    """The hub's errors as ``ValueError`` that says what to do."""
    from huggingface_hub import errors

    name = f"{repository.name}@{repository.revision}" if repository.revision else repository.name
    try:
        yield
    except errors.RevisionNotFoundError:
        raise ValueError(f"{repository.name} has no revision {repository.revision!r} on the hub") from None
    except errors.GatedRepoError:
        raise ValueError(
            f"{name} is open to those who asked on its page: ask there, then `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ValueError(
            f"{name} is not on the hub, or is private: check the name, or `hf auth login` for one of yours"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        closed = status in (401, 403)
        raise ValueError(
            f"the hub refuses {name} ({status}): "
            + (
                "`hf auth login` (or HF_TOKEN) with a token that may write there"
                if closed
                else _first_line(error)
            )
        ) from None
    except errors.HFValidationError as error:
        raise ValueError(f"{name}: {_first_line(error)}") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HTTPError) as error:
        raise ValueError(
            f"the hub can't be reached, and {name} is not in the cache: {_first_line(error)}"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
