"""Embeddings of pictures in files for others: NumPy's, or Parquet."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".npz", ".parquet")


def check_target(target: Path) -> None:
    """Before the pictures are read. ValueError for another suffix, no folder, or Parquet without what writes it."""
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--out: expected a name that ends in {' or '.join(SUFFIXES)}, got {target}")
    if not target.parent.is_dir():
        raise ValueError(f"--out {target}: there is no folder {target.parent}")
    if target.suffix.lower() == ".parquet":
        _pyarrow()


def write_embeddings(
    target: Path, embeddings: "np.ndarray", names: list[str], labels: list[str] | None, origin: str
) -> None:
    """``embeddings`` (N, D) float32 with N ``names`` and ``labels``, where there are some; ``origin`` says of what
    model. ``.npz`` holds arrays of these names, ``.parquet`` the columns name, label and embedding, a row a picture.
    The file takes its name when it is whole.

    Raises:
        ValueError: it can't be written.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        if target.suffix.lower() == ".npz":
            _write_npz(part, embeddings, names, labels, origin)
        else:
            _write_parquet(part, embeddings, names, labels, origin)
        os.replace(part, target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ValueError(f"--out {target}: can't be written: {error.strerror or error}") from error


def _write_npz(
    part: Path, embeddings: "np.ndarray", names: list[str], labels: list[str] | None, origin: str
) -> None:
    import numpy as np

    arrays: dict[str, Any] = {"embeddings": embeddings, "names": np.array(names), "model": np.array(origin)}
    if labels is not None:
        arrays["labels"] = np.array(labels)
    with open(part, "wb") as file:  # given a name, NumPy would add a suffix
        np.savez(file, **arrays)


def _write_parquet(
    part: Path, embeddings: "np.ndarray", names: list[str], labels: list[str] | None, origin: str
) -> None:
    arrow, parquet = _pyarrow()
    flat = arrow.array(embeddings.reshape(-1), type=arrow.float32())
    columns = {"name": arrow.array(names, type=arrow.string())}
    if labels is not None:
        columns["label"] = arrow.array(labels, type=arrow.string())
    columns["embedding"] = arrow.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])
    table = arrow.table(columns).replace_schema_metadata({"model": origin})
    parquet.write_table(table, str(part))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ValueError(
            "--out: Parquet is written by pyarrow, which is not installed: pip install pyarrow, or write FILE.npz"
        ) from error
    return pyarrow, parquet
