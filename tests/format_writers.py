"""Label maps written as people's annotation tools have them: each class's components are its objects."""

import base64
import io
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage

from eircli.common.types import IGNORE, UInt8Array

Mask = NDArray[np.bool_]


class Scene(NamedTuple):
    """An image's file and its label."""

    image: Path
    label: UInt8Array


def objects_of(label: UInt8Array) -> list[tuple[int, Mask]]:
    """Class id and mask of each component."""
    found = []
    for class_id in np.unique(label[(label > 0) & (label != IGNORE)]).tolist():
        parts, count = ndimage.label(label == class_id)
        found += [(class_id, parts == number) for number in range(1, count + 1)]
    return found


def outline(mask: Mask) -> list[tuple[int, int]]:
    """Corners (x, y) of one polygon around a mask's pixels; holes hang on lines that are walked both ways."""
    follow: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    padded = np.pad(mask, 1)
    for row, column in np.argwhere(mask).tolist():
        corners = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)]
        beside = [padded[row, column + 1], padded[row + 1, column + 2], padded[row + 2, column + 1], padded[row + 1, column]]
        for side in range(4):
            if not beside[side]:
                follow[corners[side]].append(corners[(side + 1) % 4])
    loops = []
    while follow:
        loop = [next(iter(follow))]
        while loop[-1] in follow:
            after = follow[loop[-1]].pop()
            if not follow[loop[-1]]:
                del follow[loop[-1]]
            loop.append(after)
        loops.append(loop)
    start = loops[0][0]
    return [corner for loop in loops for corner in [*loop, start]]


def write_coco(path: Path, scenes: Mapping[str, Scene], names: Mapping[int, str], how: str) -> None:
    """One JSON file; `how`: polygons, rle, or compressed. Ignored pixels are a crowd. Images lie beside it."""
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": number, "name": name} for number, name in sorted(names.items(), reverse=True)]
    for number, (name, scene) in enumerate(scenes.items(), start=100):
        height, width = scene.label.shape
        content["images"].append({"id": number, "file_name": name + scene.image.suffix, "width": width, "height": height})
        _copy(scene.image, path.parent / (name + scene.image.suffix))
        found = [*objects_of(scene.label), (IGNORE, scene.label == IGNORE)]
        for class_id, mask in found:
            crowd = class_id == IGNORE
            segmentation = coco_region(mask, "rle" if crowd and how == "polygons" else how)
            entry = {"id": len(content["annotations"]), "image_id": number, "iscrowd": int(crowd), "segmentation": segmentation}
            content["annotations"].append(entry | {"category_id": next(iter(names)) if crowd else class_id})
    path.write_text(json.dumps(content))


def coco_region(mask: Mask, how: str) -> Any:
    """A mask as a `segmentation`, RLE by pycocotools."""
    if how == "polygons":
        return [[float(number) for corner in outline(mask) for number in corner]]
    if how == "compressed":
        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}
    counts, last = [0], False
    for value in mask.T.ravel().tolist():
        if value != last:
            counts.append(0)
        counts[-1] += 1
        last = value
    return {"size": list(mask.shape), "counts": counts}


def write_labelme(folder: Path, scenes: Mapping[str, Scene], names: Mapping[int, str], how: str = "polygons") -> None:
    """A JSON file for each image, objects as polygons or as masks; ignored pixels are masks `__ignore__`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, scene in scenes.items():
        _copy(scene.image, folder / (name + scene.image.suffix))
        found = [(names[class_id], mask, how) for class_id, mask in objects_of(scene.label)]
        parts, count = ndimage.label(scene.label == IGNORE)
        found += [("__ignore__", parts == number, "masks") for number in range(1, count + 1)]
        shapes = [labelme_shape(label, mask, kind) for label, mask, kind in found]
        height, width = scene.label.shape
        image = {"imagePath": name + scene.image.suffix, "imageData": None, "imageHeight": height, "imageWidth": width}
        (folder / f"{name}.json").write_text(json.dumps({"version": "5.5.0", "shapes": shapes, **image}))


def labelme_shape(label: str, mask: Mask, how: str) -> dict[str, Any]:
    if how == "polygons":
        return {"label": label, "points": outline(mask), "group_id": None, "shape_type": "polygon", "flags": {}}
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    buffer = io.BytesIO()
    Image.fromarray(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]).save(buffer, "PNG")
    points = [[int(columns[0]), int(rows[0])], [int(columns[-1]), int(rows[-1])]]
    return {"label": label, "points": points, "shape_type": "mask", "mask": base64.b64encode(buffer.getvalue()).decode()}


def write_yolo(root: Path, parts: Mapping[str, Mapping[str, Scene]], names: Mapping[int, str]) -> None:
    """images/PART, labels/PART, data.yaml; class numbers begin at 0."""
    numbers = {class_id: number for number, class_id in enumerate(names)}
    for part, scenes in parts.items():
        (root / "labels" / part).mkdir(parents=True)
        for name, scene in scenes.items():
            _copy(scene.image, root / "images" / part / (name + scene.image.suffix))
            height, width = scene.label.shape
            lines = []
            for class_id, mask in objects_of(scene.label):
                corners = np.array(outline(mask)) / (width, height)
                lines.append(f"{numbers[class_id]} " + " ".join(f"{number:.6f}" for number in corners.ravel()))
            (root / f"labels/{part}/{name}.txt").write_text("\n".join(lines) + "\n")
    content: dict[str, Any] = {"path": "../somewhere", "names": {n: names[c] for c, n in numbers.items()}}
    content |= {part: f"images/{part}" for part in parts}
    (root / "data.yaml").write_text(yaml.safe_dump(content))


def write_masks(root: Path, parts: Mapping[str, Mapping[str, Scene]], names: Mapping[int, str]) -> None:
    """CVAT's "segmentation mask 1.1", with a colour for each object too; ignored pixels have VOC's colour."""
    colours = {class_id: ((37 * class_id) % 256, (91 * class_id) % 256, 40 + class_id) for class_id in names}
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
    lines += [f"{name}:{','.join(map(str, colours[class_id]))}::" for class_id, name in names.items()]
    (root / "labelmap.txt").write_text("\n".join(lines) + "\n")
    for part, scenes in parts.items():
        (root / f"ImageSets/Segmentation/{part}.txt").write_text("\n".join(scenes) + "\n")
        for name, (image, label) in scenes.items():
            _copy(image, root / "JPEGImages" / (name + image.suffix))
            classes, single = np.zeros((2, *label.shape, 3), np.uint8)
            for class_id, colour in colours.items():
                classes[label == class_id] = colour
            for number, (_, mask) in enumerate(objects_of(label), start=1):
                single[mask] = (number % 256, 128 + number // 256, 7)
            classes[label == IGNORE] = single[label == IGNORE] = (224, 224, 192)
            Image.fromarray(classes).save(root / f"SegmentationClass/{name}.png")
            Image.fromarray(single).save(root / f"SegmentationObject/{name}.png")


def _copy(image: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(image.read_bytes())
