#!/usr/bin/env python3
"""Builds the wheel and the source distribution, and installs both into empty environments: `make release`.

Each Python that uv can get here, each of the two files, plain and with each extra that users install; then all of the
package is imported there that the extra is for. A Python that can't be fetched is named, and is no failure; an
installation or an import that fails is one. Of the wheel it is also tried that it answers with an exported file where
there is no torch. `--pythons 3.12 --extras plain,onnx,files` does a part.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")  # torch has wheels for these
# What an extra is for, and so must import with it.
IMPORTS = {
    "plain": ["crosshead", "crosshead.layers", "crosshead.swap", "crosshead.models", "crosshead.probes"],
    "train": [
        "crosshead.train",
        "crosshead.tasks",
        "crosshead.heads",
        "crosshead.compare",
        "crosshead.pages",
    ],
    "dense": ["segmentation_models_pytorch", "faster_coco_eval"],
    "onnx": ["crosshead.export.runtime", "onnx", "onnxruntime"],
    "docs": ["zensical", "jupytext"],
}
FILES = "files"  # no extra: the wheel without what it depends on, and what running exported files needs
RUNS_FILES = ["numpy", "pillow", "onnxruntime"]
UV = [sys.executable, "-m", "uv"]


def check_version() -> str:
    """The version that pyproject.toml, the package, CITATION.cff and the change log's newest heading agree on."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    said = {
        "src/crosshead/__init__.py": r'^__version__ = "(.+)"',
        "CITATION.cff": r"^version: (.+)",
        "CHANGELOG.md": r"^## (\d[^ ]*) \(\d{4}-\d\d-\d\d\)",
    }
    for file, pattern in said.items():
        found = re.search(pattern, (ROOT / file).read_text(), re.MULTILINE)
        if found is None or found[1] != version:
            came = (
                found[1]
                if found
                else "no such line (a release's heading has its date: ## 0.2.0 (2026-12-01))"
            )
            sys.exit(f"{file}: expected version {version}, as pyproject.toml has it, got {came}")
    return version


def build_files(folder: Path) -> list[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(folder)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return sorted(folder.iterdir())


def check_files(files: list[Path], pythons: list[str], extras: list[str]) -> list[str]:
    """Prints a line an environment; returns the faults."""
    faults = []
    for python in pythons:
        if subprocess.run([*UV, "python", "find", python], capture_output=True).returncode:
            got = subprocess.run([*UV, "python", "install", python], capture_output=True, text=True)
            if got.returncode:
                print(f"Python {python}: is not here, and can't be fetched")
                continue
        for file in files:
            for extra in extras:
                if extra == FILES and file.suffix != ".whl":
                    continue
                fault = _check_files_run(file, python) if extra == FILES else _check(file, python, extra)
                fine = "answers without torch" if extra == FILES else "installed, and imports"
                print(f"Python {python}, {file.name}, {extra}: {fault or fine}", flush=True)
                faults += [fault] if fault else []
    return faults


def _check(file: Path, python: str, extra: str) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*UV, "venv", "--quiet", "--python", python, folder], check=True)
        own = Path(folder, "bin", "python")
        asked = str(file) if extra == "plain" else f"{file}[{extra}]"
        installed = subprocess.run(
            [*UV, "pip", "install", "--quiet", "--python", str(own), asked], capture_output=True, text=True
        )
        if installed.returncode:
            return f"is not installed: {_last(installed.stderr)}"
        names = dict.fromkeys([*IMPORTS["plain"], *IMPORTS[extra]])
        code = (
            "import " + ", ".join(names) + "; from pathlib import Path; p = Path(crosshead.__file__).parent"
        )
        code += "; assert (p / 'py.typed').is_file() and (p / 'configs/digits.yaml').is_file(), 'files are missing'"
        run = subprocess.run([own, "-c", code], capture_output=True, text=True, cwd=folder)
        return f"does not import: {_last(run.stderr)}" if run.returncode else None


def _check_files_run(wheel: Path, python: str) -> str | None:
    """Whether the wheel answers with an exported file as this environment does, where there is no torch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, picture, own = folder / "m.onnx", folder / "p.png", folder / "env" / "bin"
        here = [sys.executable, "-m", "crosshead"]
        made = "from PIL import Image; Image.radial_gradient('L').resize((50, 40)).save('p.png')"
        subprocess.run([sys.executable, "-c", made], check=True, cwd=folder)
        command = [*here, "export", "mohsa_vit_micro_patch4_32", "--out", str(file)]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        subprocess.run([*UV, "venv", "--quiet", "--python", python, str(folder / "env")], check=True)
        install = [*UV, "pip", "install", "--quiet", "--python", str(own / "python")]
        for words in (["--no-deps", str(wheel)], RUNS_FILES):
            installed = subprocess.run([*install, *words], capture_output=True, text=True)
            if installed.returncode:
                return f"is not installed: {_last(installed.stderr)}"
        answers = []
        for program in (here, [str(own / "crosshead")]):
            words = [*program, "predict", str(file), str(picture), "--json"]
            run = subprocess.run(words, capture_output=True, text=True, cwd=folder)
            if run.returncode:
                return f"does not predict: {_last(run.stderr)}"
            answers.append([each["probability"] for each in json.loads(run.stdout)[0]["predictions"]])
        apart = max(abs(a - b) for a, b in zip(*answers, strict=True))
        return f"answers {apart:.1e} apart from this environment" if apart > 1e-4 else None


def _last(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "without a word"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pythons", default=",".join(PYTHONS))
    parser.add_argument("--extras", default=",".join([*IMPORTS, FILES]))
    parser.add_argument(
        "--unreleased", action="store_true", help="leave the version and the change log unchecked"
    )
    args = parser.parse_args()
    if not args.unreleased:
        print(f"version {check_version()}")
    files = build_files(ROOT / "dist")
    faults = check_files(files, args.pythons.split(","), args.extras.split(","))
    if faults:
        sys.exit(f"{len(faults)} of these failed")
    print("\n".join(str(file) for file in files))


if __name__ == "__main__":
    main()
