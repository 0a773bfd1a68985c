"""Runs on data in COCO's form: the shipped recipes on small models, broken annotations, pycocotools' numbers."""

import json

import numpy as np
import pytest
import timm
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from runs import Watcher
from safetensors.torch import save_file

from coco_files import coco, instances, write
from crosshead.data.coco.reader import read_instances
from crosshead.data.decode.images import BrokenImage
from crosshead.recipe import load_recipe
from crosshead.tasks.coco_numbers import Predictions, coco_numbers
from crosshead.train import train

IVIT = [
    "model.args.depths=[1,1,1,1]", "model.args.dims=[8,12,16,24]", "model.args.num_heads=[1,2,2,2]",
    "model.args.landmarks=2",
]  # fmt: skip
SWIN = [
    "model.args.embed_dim=24",
    "model.args.depths=[1,1,1,1]",
    "model.args.num_heads=[2,2,4,4]",
    "model.overlap=1",
]
VIT = ["model.args.embed_dim=48", "model.args.num_heads=4", "model.overlap=index/2", "data.image_size=64"]
RCNN = [
    "model.detector.box_width=16", "model.detector.mask_layers=[8]", "model.detector.roi_samples=16",
    "model.detector.proposals=[40,20,40,20]",
]  # fmt: skip
RECIPES = {
    "coco_retinanet_ivit_tiny_1x": (IVIT, 1e-4, 1e-4, 12),
    "coco_retinanet_ivit_small_1x": (IVIT, 1e-4, 1e-4, 12),
    "coco_mask_rcnn_ivit_tiny_1x": ([*IVIT, *RCNN], 2e-4, 1e-4, 12),
    "coco_mask_rcnn_ivit_small_1x": ([*IVIT, *RCNN], 2e-4, 1e-4, 12),
    "coco_mask_rcnn_mohsa_swin_tiny_1x": ([*SWIN, *RCNN, "augment.short_sides=[32,40,48]"], 1e-4, 0.05, 12),
    "coco_mask_rcnn_mohsa_vit_small_vitdet": ([*VIT, *RCNN], 1e-4, 0.1, 100),
}
SMALL = [
    "train.device=cpu", "train.precision=fp32", "log.tensorboard=false", "data.num_workers=0", "data.eval_resize=48",
    "data.longest=64", "data.batch_size=2", "model.detector.pyramid.width=8",
    "train.steps=2", "schedule.warmup_steps=0",
]  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_of_coco_run_from_end_to_end(tmp_path, name):
    own, rate, decay, epochs = RECIPES[name]
    words = [*SMALL, "data.image_size=[48,64]", *own]
    if "vitdet" in name:  # its rates fall from block to block, which is for models that know something
        known = timm.create_model("mohsa_vit_small_patch16_224", embed_dim=48, num_heads=4, overlap="index/2")
        save_file(known.state_dict(), tmp_path / "known.safetensors")
        words += [f"model.init_from={tmp_path / 'known.safetensors'}"]
    recipe = load_recipe(name, words, {"data.root": str(coco(tmp_path / "data", size=(60, 45)))})
    result = train(recipe, folder=tmp_path / "run")
    assert result.status == "finished" and result.validation["count"] == 3
    assert result.metric == ("mask_ap" if "mask" in name else "box_ap")
    recorded = json.loads((tmp_path / "run" / "classes.json").read_text())
    assert recorded["class_ids"] == [1, 13, 90] and recorded["class_names"][2] == "toothbrush"
    whole = load_recipe(name)
    assert (whole.optimizer.lr, whole.optimizer.weight_decay, whole.train.epochs) == (rate, decay, epochs)
    assert whole.schedule.name == "step" and whole.optimizer.clip_grad is None
    assert whole.schedule.warmup_lr == pytest.approx(rate / 1000)


def test_broken_annotations_are_left_out_named_and_counted(tmp_path):
    root = tmp_path / "data"
    content = instances(1, 7)
    content["annotations"][3]["bbox"] = [1, 2, float("nan"), 4]
    write(root / "train.json", content, root / "images")
    write(root / "val.json", instances(11), root / "images")
    Image.new("RGB", (7, 7)).save(root / "images" / "000005.png")
    words = [*SMALL, *IVIT, *RCNN, "data.name=coco-folder", "data.image_size=[48,64]", "train.steps=3"]
    root_of = {"data.root": str(root)}
    skipping = load_recipe("coco_mask_rcnn_ivit_tiny_1x", words, root_of)
    assert train(skipping, folder=tmp_path / "objects").broken_images == 1  # the box costs itself alone
    recipe = load_recipe("coco_mask_rcnn_ivit_tiny_1x", [*words, "data.on_broken_object=picture"], root_of)
    watcher = Watcher()
    result = train(recipe, folder=tmp_path / "run", callback=watcher)
    assert result.status == "finished" and result.broken_images == 2
    broken = [event.details for event in watcher.events if event.kind == "broken_image"]
    told = {details["image"][-10:]: details["reason"] for details in broken}
    assert told.keys() == {"000002.png", "000005.png"}
    assert "annotation 20: box [1, 2, nan, 4] is not finite" in told["000002.png"]
    assert "its annotations are for 40 x 30" in told["000005.png"]
    notes = [event.message for event in watcher.events if event.kind == "data"]
    assert any("1 of 7 pictures count as broken" in note for note in notes)
    content = instances(11)
    content["annotations"][0]["category_id"] = 4
    write(root / "val.json", content, root / "images")
    with pytest.raises(BrokenImage, match=r"annotation 110: category 4 .*on_broken_eval=skip"):
        train(recipe, folder=tmp_path / "other")
    assert not (tmp_path / "other" / "metrics.jsonl").exists()


def test_the_numbers_of_a_file_are_pycocotools(tmp_path, capsys):
    """What is read, judged as the trainer judges, against the file itself, judged by COCO's own code."""
    draw = np.random.default_rng(3)
    content = instances(1, 30)
    for k, annotation in enumerate(content["annotations"]):
        if not annotation["iscrowd"]:
            annotation["area"] = float(draw.choice([100.0, 2000.0, 9999.0]))
            annotation["bbox"] = [side + draw.random() * 0.01 for side in annotation["bbox"]]
        annotation["id"] = 7 * k + 5
    file = tmp_path / "val.json"
    file.write_text(json.dumps(content))
    with open(file, encoding="utf-8") as stream:
        mine = read_instances(stream, max_megapixels=1).instances
    truth = [mine.objects(i) for i in range(len(mine))]
    found, results = [], []
    for i, objects in enumerate(truth):
        boxes = objects.boxes + draw.normal(0, 1, objects.boxes.shape)
        scores = draw.random(len(boxes))
        found.append(Predictions(boxes, objects.labels, scores))
        results += [
            {"image_id": i + 1, "category_id": int(mine.category_ids[label]), "score": float(score)}
            | {"bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
            for box, label, score in zip(boxes.tolist(), objects.labels, scores, strict=True)
        ]
    peer = COCO(str(file))
    judged = COCOeval(peer, peer.loadRes(results), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    numbers = coco_numbers(truth, found, mine.class_names, masks=False).overall
    assert np.abs(np.array(list(numbers.values())) - judged.stats).max() <= 1e-9 and 0.1 < numbers["AP"] < 0.9
