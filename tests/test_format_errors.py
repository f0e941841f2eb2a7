"""Annotations that are faulty are refused by name, in one line; images that lie on their side are set upright."""

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from eircli.common.errors import UserError
from eircli.config.datasets import Coco, Folder, Labelme, Masks, Yolo
from eircli.data.class_index import read_class_index
from eircli.data.open import open_dataset
from tests.format_writers import Scene, coco_region, write_coco, write_labelme, write_masks, write_yolo

NAMES = {1: "cat", 2: "dog"}
SIZE = (8, 6)

Change = Callable[[Path], object]


def emptied(pattern: str) -> Change:
    """The files of a pattern taken away."""

    def apply(root: Path) -> None:
        for path in root.glob(pattern):
            path.unlink()

    return apply


@pytest.fixture
def scenes(tmp_path: Path) -> dict[str, Scene]:
    """Two images of 8x6 pixels, each with a cat and a dog."""
    image, label = tmp_path / "source.png", np.zeros(SIZE[::-1], np.uint8)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*label.shape, 3), dtype=np.uint8)).save(image)
    label[1:4, 1:4], label[2:5, 5:7] = 1, 2
    return {name: Scene(image, label) for name in ("a", "b")}


def edit(file: str, change: Callable[[Any], object]) -> Change:
    """A change of a JSON file's content; what it returns, if anything, takes its place."""

    def apply(root: Path) -> None:
        content = json.loads((root / file).read_text())
        changed = change(content)
        (root / file).write_text(json.dumps(content if changed is None else changed))

    return apply


def annotation(**changes: object) -> Change:
    return edit("all.json", lambda content: content["annotations"][0].update(changes))


def refused(config: Any, message: str) -> None:
    def read() -> None:
        data = open_dataset(config)
        for split in (data.train, data.val):
            read_class_index(split, len(data.classes), workers=0)

    with pytest.raises(UserError, match=message) as error:
        read()
    assert "\n" not in str(error.value)


COCO_FAULTS: list[tuple[Change, str]] = [
    (lambda root: (root / "all.json").write_text("{'a'"), r"all\.json: is no JSON"),
    (
        lambda root: (root / "all.json").write_text('[{"caption": 1}]'),
        r"all\.json: is no COCO instance file: it has no list 'images'",
    ),
    (edit("all.json", lambda c: c.pop("annotations") and c), r"it has no list 'annotations'"),
    (emptied("all.json"), r"all\.json: missing"),
    (emptied("b.png"), r"b\.png: missing, listed in .*all\.json .*check dataset\.train_images"),
    (edit("all.json", lambda c: c["images"].clear()), r"all\.json: lists no image"),
    (edit("all.json", lambda c: c["categories"].clear() or c["annotations"].clear()), r"all\.json: has 0 classes"),
    (annotation(category_id=9), r"annotation 0 is of category 9, which is not listed"),
    (annotation(image_id=9), r"annotation 0 is of image 9, which is not listed"),
    (annotation(segmentation=[[1, 1, 3, 3]]), r"annotation 0 of a\.png: a polygon of 2 points"),
    (annotation(segmentation=[[1, 1, 3, 3, 5]]), r"annotation 0 of a\.png: its segmentation is neither"),
    (annotation(segmentation=[[1, 1, 3, 3, None, 5]]), r"annotation 0 of a\.png: its segmentation is neither"),
    (annotation(segmentation=[]), r"annotation 0 of a\.png: has no segmentation"),
    (annotation(segmentation=[[1, 1, 3, 3, 5e8, 5]]), r"annotation 0 .*far outside the 8x6 image"),
    (
        annotation(segmentation=coco_region(np.ones((5, 8), bool), "rle")),
        r"annotation 0 .*an RLE of 8x5 pixels in an image of 8x6",
    ),
    (annotation(segmentation={"size": [6, 8], "counts": [3, 2]}), r"annotation 0 .*runs are not as long as"),
    (annotation(segmentation={"size": [6, 8], "counts": "zz~"}), r"annotation 0 .*neither polygons nor an RLE"),
    (annotation(segmentation={"size": [6, 8]}), r"annotation 0 .*neither polygons nor an RLE"),
    (edit("all.json", lambda c: c["categories"][0].update(name="cat")), r"two classes are named 'cat'"),
    (edit("all.json", lambda c: c["categories"][0].update(id=1)), r"category id 1 occurs twice"),
    (edit("all.json", lambda c: c["images"][0].update(file_name="b.png")), r"lists two images named b"),
    (edit("all.json", lambda c: c["images"][0].update(width=9)), r"image a: was made on 9x6 pixels, its image a\.png is 8x6"),
    (edit("all.json", lambda c: c["images"][0].pop("height") and None), r"image 100 needs file_name, width and height"),
    (edit("all.json", lambda c: c["categories"].extend({"id": k, "name": f"{k}"} for k in range(3, 300))), r"has 299 classes"),
]


@pytest.mark.parametrize(("change", "message"), COCO_FAULTS)
def test_coco(scenes: dict[str, Scene], tmp_path: Path, change: Change, message: str) -> None:
    write_coco(tmp_path / "all.json", scenes, NAMES, "polygons")
    config = Coco(kind="coco", root=tmp_path, train="all.json", val_every=2)
    read_class_index(open_dataset(config).train, 2, workers=0)
    change(tmp_path)
    refused(config, message)


def test_coco_parts_must_have_the_same_categories(scenes: dict[str, Scene], tmp_path: Path) -> None:
    write_coco(tmp_path / "a.json", scenes, NAMES, "polygons")
    write_coco(tmp_path / "b.json", scenes, {2: "cat", 1: "owl"}, "polygons")
    refused(Coco(kind="coco", root=tmp_path, train="a.json", val="b.json"), r"b\.json: category 'owl' is not in .*a\.json")
    data = open_dataset(Coco(kind="coco", root=tmp_path, train="a.json", val="b.json", classes=("cat",)))
    assert (data.train.load_label(0)[1, 1], data.val.load_label(0)[1, 1], data.val.load_label(0)[2, 5]) == (1, 0, 1)


def shape(**changes: object) -> Change:
    return edit("a.json", lambda content: content["shapes"][0].update(changes))


LABELME_FAULTS: list[tuple[Change, str]] = [
    (lambda root: (root / "a.json").write_text("no"), r"a\.json: is no JSON"),
    (lambda root: (root / "c.json").write_text("[]"), r"c\.json: input should be a valid .*if it is not LabelMe's"),
    (emptied("*.json"), r"holds no JSON file"),
    (emptied("a.png"), r"a\.json: its image a\.png is neither there nor beside it"),
    (shape(points=[[1, 1], [2, 2]]), r"a\.json: shape 1 \('cat'\): a polygon of 2 points"),
    (shape(points=[[1, 1], [2, "x"], [3, 4]]), r"a\.json: shapes\.0\.points\.1\.1: input should be a valid number"),
    (shape(shape_type="linestrip"), r"shape 1 \('cat'\): is a linestrip, which has no area"),
    (shape(shape_type="circle"), r"shape 1 \('cat'\): a circle of .* points; it needs 2"),
    (shape(shape_type="mask", points=[[1, 1], [2, 2]], mask="?"), r"shape 1 \('cat'\): is no base64"),
    (shape(label=None), r"a\.json: shapes\.0\.label: input should be a valid string"),
    (edit("a.json", lambda content: content.update(imageWidth=4)), r"a\.json: was made on 4x6 pixels, its image a\.png is 8x6"),
]


@pytest.mark.parametrize(("change", "message"), LABELME_FAULTS)
def test_labelme(scenes: dict[str, Scene], tmp_path: Path, change: Change, message: str) -> None:
    write_labelme(tmp_path / "all", scenes, NAMES)
    config = Labelme(kind="labelme", root=tmp_path, train="all", val_every=2)
    read_class_index(open_dataset(config).train, 2, workers=0)
    change(tmp_path / "all")
    refused(config, message)


def test_labelme_finds_images_as_other_machines_wrote_them(scenes: dict[str, Scene], tmp_path: Path) -> None:
    write_labelme(tmp_path / "all", scenes, NAMES)
    config = Labelme(kind="labelme", root=tmp_path, train="all", val_every=2)
    expected = open_dataset(config).train.load(0)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "all/a.png").rename(tmp_path / "pictures/a.png")
    content = (tmp_path / "pictures/a.png").read_bytes()
    written = {"imagePath": "..\\pictures\\a.png"}, {"imagePath": "../pictures/a.png"}
    embedded = {"imagePath": "C:\\work\\a.png", "imageData": base64.b64encode(content).decode()}
    for values in (*written, embedded):
        edit("all/a.json", lambda content, values=values: content.update(values))(tmp_path)  # type: ignore[misc]
        if values is embedded:
            (tmp_path / "pictures/a.png").unlink()
        found = open_dataset(config).train.load(0)
        np.testing.assert_array_equal(found.image, expected.image)
        np.testing.assert_array_equal(found.label, expected.label)


def test_labelmes_shapes_of_a_group_are_one_object(scenes: dict[str, Scene], tmp_path: Path) -> None:
    write_labelme(tmp_path / "all", scenes, NAMES)
    corner = {"label": "cat", "group_id": 4, "shape_type": "rectangle", "points": [[8, 6], [7, 5]]}
    edit("all/a.json", lambda content: content["shapes"][0].update(group_id=4))(tmp_path)
    edit("all/a.json", lambda content: content["shapes"].append(corner))(tmp_path)
    split = open_dataset(Labelme(kind="labelme", root=tmp_path, train="all", val_every=2)).train
    numbers, labels = split.load_instances(0)  # type: ignore[attr-defined]
    assert numbers[5, 7] == numbers[1, 1] == 1
    assert labels.tolist() == [1, 2]


def lines(*given: str) -> Change:
    return lambda root: (root / "labels/train/a.txt").write_text("\n".join(given))


YOLO_FAULTS: list[tuple[Change, str]] = [
    (lambda root: (root / "data.yaml").write_text("names: [a"), r"data\.yaml: is no YAML"),
    (
        lambda root: (root / "data.yaml").write_text("train: images/train\nval: images/val"),
        r"data\.yaml: names: field required; write names, train and val",
    ),
    (
        lambda root: (root / "data.yaml").write_text("names: [a, b]\nnc: 3\ntrain: x"),
        r"data\.yaml: nc is 3, but there are 2 names",
    ),
    (lambda root: (root / "data.yaml").write_text("names: [a, b]\ntrain: images/train"), r"has no val; .*dataset\.val_every"),
    (
        lambda root: (root / "data.yaml").write_text("names: [a, b]\ntrain: images/x\nval: images/val"),
        r"train: .*x is neither a folder",
    ),
    (
        lambda root: (root / "data.yaml").write_text("names: [a, a]\ntrain: images/train\nval: images/val"),
        r"two classes are named 'a'",
    ),
    (emptied("images/val/*"), r"val: holds no image"),
    (emptied("labels/val/*"), r"a\.txt: missing, and so are the labels of all"),
    (lines("", "2 0.1 0.1 0.5 0.5 0.1 0.9"), r"a\.txt: line 2: class 2, but the names have the numbers 0 to 1"),
    (lines("0 0.1 0.1 0.5 0.5"), r"a\.txt: line 1: holds 4 numbers after the class, a box or less"),
    (lines("0 0.1 0.1 0.5 0.5 x 1"), r"a\.txt: line 1: is no class number followed by"),
    (lines("cat 0.1 0.1 0.5 0.5 1 1"), r"a\.txt: line 1: is no class number followed by"),
    (lines("0 100 100 300 100 300 200"), r"a\.txt: line 1: a polygon far outside the 8x6 image"),
]


@pytest.mark.parametrize(("change", "message"), YOLO_FAULTS)
def test_yolo(scenes: dict[str, Scene], tmp_path: Path, change: Change, message: str) -> None:
    write_yolo(tmp_path, {"train": scenes, "val": scenes}, NAMES)
    config = Yolo(kind="yolo", root=tmp_path)
    read_class_index(open_dataset(config).train, 2, workers=0)
    change(tmp_path)
    refused(config, message)


def test_yolos_images_may_be_listed_and_have_no_labels(scenes: dict[str, Scene], tmp_path: Path) -> None:
    write_yolo(tmp_path, {"train": scenes}, NAMES)
    (tmp_path / "labels/train/b.txt").unlink()
    (tmp_path / "list.txt").write_text("images/train/a.png\n./images/train/b.png\n".replace("./", ""))
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\ntrain: list.txt\nval: [../images/train]")
    data = open_dataset(Yolo(kind="yolo", root=tmp_path))
    assert (data.train.present(0), data.train.present(1)) == ([0, 1, 2], [0])
    assert len(data.val) == 2


def paint_pixel(root: Path) -> None:
    path = root / "SegmentationClass/a.png"
    image = Image.open(path).convert("RGB")
    image.putpixel((3, 5), (1, 2, 3))
    image.save(path)


MASK_FAULTS: list[tuple[Change, str]] = [
    (paint_pixel, r"a\.png: colour 1,2,3 at column 3, row 5 is not in labelmap\.txt \(1 such pixels\)"),
    (emptied("labelmap.txt"), r"labelmap\.txt: missing"),
    (lambda root: (root / "labelmap.txt").write_text("cat 1 2 3"), r"labelmap\.txt: 'cat 1 2 3': expected name:red,green,blue"),
    (
        lambda root: (root / "labelmap.txt").write_text("cat:1,2,3::\ndog:1,2,3::"),
        r"'dog:1,2,3::': its name or its colour stands there",
    ),
    (lambda root: (root / "labelmap.txt").write_text("background:0,0,0::"), r"labelmap\.txt: has 0 classes"),
    (emptied("SegmentationClass/a.png"), r"SegmentationClass/a\.\*: missing, listed in .*all\.txt"),
    (lambda root: (root / "ImageSets/Segmentation/all.txt").write_text("\n"), r"all\.txt: lists no image"),
    (lambda root: Image.new("RGB", (4, 4)).save(root / "SegmentationClass/a.png"), r"a\.png: was made on 4x4 pixels, .* is 8x6"),
    (
        lambda root: (root / "SegmentationClass/a.png").write_bytes((root / "SegmentationClass/a.png").read_bytes()[:-14]),
        r"a\.png: truncated",
    ),
]


@pytest.mark.parametrize(("change", "message"), MASK_FAULTS)
def test_masks(scenes: dict[str, Scene], tmp_path: Path, change: Change, message: str) -> None:
    write_masks(tmp_path, {"all": scenes}, NAMES)
    config = Masks(kind="masks", root=tmp_path, train="all", val_every=2)
    read_class_index(open_dataset(config).train, 2, workers=0)
    change(tmp_path)
    refused(config, message)


def test_a_part_must_be_left_to_validate_on(scenes: dict[str, Scene], tmp_path: Path) -> None:
    write_masks(tmp_path, {"all": scenes}, NAMES)
    refused(Masks(kind="masks", root=tmp_path, train="all", val_every=3), r"dataset\.val_every: every 3th of 2 images")
    for parts in ({}, {"val": "all", "val_every": 2}):
        with pytest.raises(ValueError, match="give either val, the validation part, or val_every"):
            Masks.model_validate({"kind": "masks", "root": tmp_path} | parts)


def test_a_folder_says_who_reads_colours(scenes: dict[str, Scene], tmp_path: Path) -> None:
    for split in ("training", "validation"):
        for part in ("images", "annotations"):
            (tmp_path / part / split).mkdir(parents=True)
            Image.new("RGB", SIZE).save(tmp_path / part / split / "a.png")
    (tmp_path / "classes.txt").write_text("cat")
    refused(Folder(kind="folder", root=tmp_path), r"a\.png: .* coded as RGB; .*kind: masks reads colours, by a labelmap\.txt")


@pytest.mark.parametrize("kind", ["coco", "labelme", "yolo"])
def test_a_missing_extra_is_named(scenes: dict[str, Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    configs = {
        "coco": Coco(kind="coco", root=tmp_path, train="a", val_every=2),
        "labelme": Labelme(kind="labelme", root=tmp_path, val_every=2),
        "yolo": Yolo(kind="yolo", root=tmp_path),
    }
    refused(configs[kind], r"pip install 'eircli\[coco\]'")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("short_side", [None, 16])
def test_images_on_their_side_are_set_upright(tmp_path: Path, orientation: int, short_side: int | None) -> None:
    """As the annotation has them: upright as a viewer shows them, or as stored where only that is its size."""
    rows, columns = np.mgrid[:48, :64]
    image = Image.fromarray(np.stack([rows * 5, columns * 4, rows + columns], axis=-1).astype(np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    from PIL import ImageOps

    with Image.open(tmp_path / "a.jpg") as file:
        shown, stored = (np.array(picture.convert("RGB")) for picture in (ImageOps.exif_transpose(file), file))
    square = [[1, 1, 9, 1, 9, 5, 1, 5]]
    for expected in (shown, stored) if orientation > 4 else (shown,):
        height, width = expected.shape[:2]
        entries = {"images": [{"id": 1, "file_name": "a.jpg", "width": width, "height": height}]}
        objects = {"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": square}]}
        content = entries | objects | {"categories": [{"id": 1, "name": "cat"}]}
        (tmp_path / "all.json").write_text(json.dumps(content))
        split = open_dataset(Coco(kind="coco", root=tmp_path, train="all.json", val="all.json")).train
        found = split.load(0, short_side)
        assert found.image.shape[:2] == found.label.shape
        np.testing.assert_array_equal(np.argwhere(split.load_label(0))[[0, -1]], [[1, 1], [4, 8]])
        if short_side is None:
            np.testing.assert_array_equal(found.image, expected)
        else:
            reduced = np.array(Image.fromarray(expected).resize(found.label.shape[::-1], Image.Resampling.BILINEAR))
            assert np.abs(found.image.astype(int) - reduced).max() <= 4
