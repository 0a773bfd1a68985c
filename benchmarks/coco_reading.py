"""Opening a COCO file of the size of instances_train2017.json: seconds and memory, against pycocotools.

    python benchmarks/coco_reading.py        into benchmarks/results/coco_reading_cpu.json

The file is made up: 118,287 pictures, 860,001 objects with a polygon of 27 points each on average, every 86th of them
run lengths of a crowd; somewhat larger than COCO's own. Ours lists the picture files too (they are empty) and checks
every object. Each reader runs in a process of its own, in turn.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from interleave import RESULTS, conditions

PICTURES, OBJECTS = 118_287, 860_001
SIZE = (480, 640)


def write_file(file: Path, pictures: Path) -> None:
    draw = np.random.default_rng(0)
    pictures.mkdir()
    owner = np.sort(draw.integers(1, PICTURES + 1, OBJECTS)).tolist()
    with open(file, "w") as out:
        out.write('{"info": {}, "licenses": [], "images": [')
        for i in range(1, PICTURES + 1):
            name = f"{i:012d}.jpg"
            (pictures / name).touch()
            entry = {"license": 3, "file_name": name, "height": SIZE[0], "width": SIZE[1], "id": i}
            entry |= {"coco_url": "http://images.example.org/" + name, "date_captured": "2013-11-14 11:18:45"}
            out.write((", " if i > 1 else "") + json.dumps(entry))
        out.write('], "annotations": [')
        for k in range(OBJECTS):
            out.write((", " if k else "") + json.dumps(_annotation(draw, k, owner[k])))
        categories = [{"supercategory": "thing", "id": i, "name": f"class {i}"} for i in range(1, 81)]
        out.write('], "categories": ' + json.dumps(categories) + "}")


def _annotation(draw: np.random.Generator, k: int, owner: int) -> dict:
    points = int(draw.gamma(2, 12)) + 3
    x, y, wide, high = draw.random(4) * (500, 380, 100, 80) + (0, 0, 10, 10)
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    outline = np.stack([x + wide / 2 * (1 + np.cos(angle)), y + high / 2 * (1 + np.sin(angle))], 1)
    segmentation: object = [outline.round(2).ravel().tolist()]
    if crowd := k % 86 == 0:
        counts = draw.multinomial(SIZE[0] * SIZE[1], np.full(40, 1 / 40)).tolist()
        segmentation = {"counts": counts, "size": list(SIZE)}
    return {
        "segmentation": segmentation,
        "area": round(wide * high * 0.7, 4),
        "iscrowd": int(crowd),
        "image_id": owner,
        "bbox": [round(side, 2) for side in (x, y, wide, high)],
        "category_id": int(draw.integers(1, 81)),
        "id": k + 1,
    }


def read_ours(file: Path, pictures: Path) -> int:
    from crosshead.data.datasets.coco_pictures import read_coco
    from crosshead.recipe.schema import DataConfig

    part = read_coco(file, [pictures], DataConfig(name="coco"), inside=file.parent)
    assert not part.notes and len(part.images) == PICTURES
    return len(part.images.instances.ids)


def read_pycocotools(file: Path, pictures: Path) -> int:
    from pycocotools.coco import COCO

    return len(COCO(str(file)).anns)


READERS = {"crosshead": read_ours, "pycocotools": read_pycocotools}


def measure(reader: str, file: Path, pictures: Path) -> dict[str, float]:
    """In a process of its own: seconds, and MiB of memory at its peak, without what the process had before."""
    done = subprocess.run(
        [sys.executable, __file__, "--reader", reader, "--file", str(file), "--pictures", str(pictures)],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure_here(reader: str, file: Path, pictures: Path) -> dict[str, float]:
    if reader == "crosshead":  # what it imports is not of the file
        pass
    else:
        import pycocotools.coco  # noqa: F401
    before, start = _held(), time.perf_counter()
    count = READERS[reader](file, pictures)
    seconds = time.perf_counter() - start
    assert count == OBJECTS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mib": peak - before}


def _held() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pictures", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reader:
        print(json.dumps(measure_here(args.reader, args.file, args.pictures)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file, pictures = Path(folder, "train.json"), Path(folder, "pictures")
        write_file(file, pictures)
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in READERS}
        for _ in range(args.rounds):
            for name, rows in measured.items():
                rows.append(measure(name, file, pictures))
        megabytes = file.stat().st_size / 1e6
    readers = {
        name: {key: round(statistics.median(row[key] for row in rows), 1) for key in rows[0]}
        | {"seconds_of_all": [round(row["seconds"], 1) for row in rows]}
        for name, rows in measured.items()
    }
    header = conditions("as it comes") | {"file_mb": round(megabytes)}
    path = RESULTS / "coco_reading_cpu.json"
    path.write_text(json.dumps({"conditions": header, "readers": readers}, indent=1) + "\n")
    print(json.dumps(readers, indent=1))


if __name__ == "__main__":
    main()
