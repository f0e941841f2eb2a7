"""The HTML report: its figures, that it is one well-formed file, and that a real browser shows it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eircli.cli.app import main
from eircli.common.errors import UserError
from eircli.reports.html.colours import class_colours, seen
from eircli.reports.html.facts import read_training
from eircli.reports.html.figures import MOST_POINTS, confusion_picture, mistakes_table, thinned
from eircli.reports.html.report import default_path, write_report
from eircli.reports.html.svg import ticks
from eircli.run.run import open_run
from eircli.stages.run_protocol import run_protocol
from tests import chromium

TINY = Path(__file__).parent / "tiny.yaml"

EVIL = "<script>alert(1)</script>"

VOID = {"meta", "img", "br", "hr", "link", "input"}

BROWSER = chromium.installed()


def quiet(_: str) -> None:
    return None


class Document(HTMLParser):
    """A page taken apart: what it refers to, its tables as text, and whether its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.alts: list[str | None] = []
        self.words: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert len(given) == len(attrs), f"{tag}: an attribute twice"
        if tag not in VOID:
            self.open.append(tag)
        self._look(tag, given)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look(tag, dict(attrs))

    def _look(self, tag: str, given: dict[str, str | None]) -> None:
        self.ids += [value for name, value in given.items() if name == "id" and value]
        self.sources += [value or "" for name, value in given.items() if name in ("src", "srcset", "data", "poster")]
        if tag == "a":
            self.links.append(given.get("href") or "")
        elif "href" in given or "xlink:href" in given:
            self.sources.append(given.get("href") or given.get("xlink:href") or "")
        assert not any(name.startswith("on") for name in given), given
        if tag == "img":
            self.alts.append(given.get("alt"))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)
        if any(tag in ("td", "th") for tag in self.open):
            self.tables[-1][-1][-1] += data.strip()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def table(self, *header: str) -> list[list[str]]:
        """The first table whose header begins so."""
        return next(table for table in self.tables if table[0][: len(header)] == list(header))


def parsed(file: Path) -> Document:
    """A report, after the checks that every report passes."""
    text = file.read_text(encoding="utf-8")
    page = Document(text)
    assert len(page.ids) == len(set(page.ids))
    assert page.links
    assert all(link[:1] == "#" and link[1:] in page.ids for link in page.links)
    assert all(source.startswith("data:image/") for source in page.sources)
    assert all(page.alts)
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\(", text)
    return page


def draw_folder(root: Path) -> None:
    """A folder data set of three classes, one of which has a name that is a program."""
    generator = np.random.default_rng(0)
    for split in ("training", "validation"):
        for number in range(9):
            label = np.zeros((40, 60 - number), np.uint8)
            label[8:30, 10:34] = 1 + number % 3
            image = np.where(label[..., None] > 0, 80 * label[..., None], generator.integers(0, 40, (*label.shape, 3)))
            for kind, pixels in (("images", image.astype(np.uint8)), ("annotations", label)):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / f"{kind}/{split}/{number}.png")
    (root / "classes.txt").write_text(f'{EVIL}\nR&D "x"\ncow\n')


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data set `data` and the finished runs `runs/evil-seed0`, 1 and 2; not to be written to."""
    folder = tmp_path_factory.mktemp("report")
    draw_folder(folder / "data")
    recipe = TINY.read_text(encoding="utf-8").replace('"2-1"', '"1-1"').replace("iterations: 40", "iterations: 6")
    (folder / "evil.yaml").write_text(re.sub(r"dataset: .*", f"dataset: {{kind: folder, root: {folder / 'data'}}}", recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EIR_CACHE", str(folder / "cache"))
        for seed in range(3):
            overrides = [f"seed={seed}", "data.short_side=32"]
            run = open_run(folder / "evil.yaml", overrides, folder / f"runs/evil-seed{seed}").checked()
            with run.locked():
                run_protocol(run, quiet)
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of one run, whose data set is where it was."""
    shutil.copytree(made / "runs/evil-seed0", tmp_path / "run")
    return tmp_path / "run"


def report(*targets: Path, pictures: int = 2, out: Path, overrides: tuple[str, ...] = ()) -> Document:
    write_report([open_run(target, overrides) for target in targets], out, pictures)
    return parsed(out)


def shown(value: float | None) -> str:
    """How a figure must stand in the report."""
    return "–" if value is None else f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−")


def test_figures_are_those_of_the_results(made: Path, tmp_path: Path) -> None:
    run = made / "runs/evil-seed0"
    page = report(run, out=tmp_path / "report.html")
    results = [json.loads((run / f"step-{step}/results.json").read_text()) for step in range(3)]
    names = ("old", "new", "all", "harmonic", "average_all", "old_taken_by_background")
    figures = page.table("after", "old", "new", "all")
    assert figures[1:] == [[f"step {r['step']}", *(shown(r[n]) for n in names), str(r["images"])] for r in results]
    ious, taken = (table for table in page.tables if table[0][:3] == ["class", "learned", "step 0"])
    for table, key in ((ious, "iou"), (taken, "taken_by_background")):
        rows = {row[0]: row[2:5] for row in table[1:]}
        for step, one in enumerate(results):
            for row in one["classes"]:
                if key == "iou" or row["id"]:
                    assert rows[row["name"]][step] == shown(row[key])
    assert {row[0]: row[5] for row in ious[1:]} == {row["name"]: shown(row["forgetting"]) for row in results[2]["classes"]}
    assert [row[2:4] for row in ious[1:] if row[0] == "cow"] == [["", ""]], "not learned before step 2"


def test_the_confusion_matrix_is_normalised_by_rows(made: Path, tmp_path: Path) -> None:
    run = made / "runs/evil-seed0"
    page = report(run, pictures=0, out=tmp_path / "report.html")
    with (run / "step-2/confusion.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    table = page.table("truth ↓  predicted →")
    for row, (name, *cells) in zip(table[1:], rows, strict=True):
        counts = [int(cell) for cell in cells]
        shares = [100 * count / sum(counts) for count in counts]
        assert row == [name, *("" if share < 0.5 else f"{share:.0f}" for share in shares), f"{sum(counts):,}"]


def test_user_text_is_escaped(made: Path, tmp_path: Path) -> None:
    page = report(made / "runs/evil-seed0", out=tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert EVIL not in text
    assert text.count("<script") == 1
    assert EVIL in page.text
    assert any(row[0] == 'R&D "x"' for table in page.tables for row in table)
    assert any(EVIL in (alt or "") for alt in page.alts), "and in the pictures' descriptions"


def test_pictures_memory_and_origin_are_shown(made: Path, tmp_path: Path) -> None:
    run = made / "runs/evil-seed0"
    page = report(run, pictures=2, out=tmp_path / "report.html")
    alts = [alt or "" for alt in page.alts]
    for image in ("0", "8"):  # the first and the last of nine: evenly spaced
        assert f"test image {image}" in alts
        assert [alt.partition(":")[0] for alt in alts if alt.startswith(f"{image}, ")] == [
            f"{image}, truth", *(f"{image}, after step {step}" for step in range(3))
        ]  # fmt: skip
    bank = open_run(run).directory.steps[2]["bank"]
    assert sum("exemplar" in alt for alt in alts) == bank.facts["exemplars"]
    entries = [entry for step in open_run(run).directory.steps.values() for entry in step.values()]
    assert [row[4] for row in page.table("step", "file", "size")[1:]] == [entry.sha256 for entry in entries]
    assert "PyTorch" in page.text
    assert "no weights" in page.text
    assert "aspp_channels: 16" in page.text
    assert (tmp_path / "report.html").stat().st_size < 500_000


def test_a_run_without_its_data_says_so(copied: Path, tmp_path: Path) -> None:
    page = report(copied, out=tmp_path / "report.html", overrides=(f"dataset.root={tmp_path / 'gone'}",))
    assert "the test images and predictions cannot be had here: " in page.text
    assert str(tmp_path / "gone") in page.text
    assert not any("test image" in (alt or "") for alt in page.alts)
    assert page.table("after", "old")


def test_an_unfinished_run_names_what_is_missing(copied: Path, tmp_path: Path) -> None:
    manifest = copied / "manifest.yaml"
    text = manifest.read_text()
    manifest.write_text(text[: text.index("  2:\n")])
    (copied / "step-0/journal.jsonl").unlink()
    (copied / "step-1/confusion.csv").write_text("truth,x\nx,1\n")
    page = report(copied, pictures=1, out=tmp_path / "report.html")
    for line in (
        "This run is not finished",
        "step 2: no memory yet (eir build-memory)",
        "step 2: no checkpoint yet (eir train)",
        "step 2: no results yet (eir evaluate)",
        f"eir build-memory {copied} --step 2",
        "its journal is not there",
        "confusion.csv is of another evaluation than the results",
    ):
        assert line in page.text, line
    assert [row[0] for row in page.table("after", "old")[1:]] == ["step 0", "step 1"]
    assert page.table("class", "learned", "step 0", "step 1", "step 2")
    (copied / "step-1/results.json").unlink()
    page = report(copied, pictures=0, out=tmp_path / "report.html")
    assert "step 1: results: step-1/results.json is recorded, but no longer there" in page.text


def test_a_run_with_nothing_made(made: Path, tmp_path: Path) -> None:
    run = open_run(made / "evil.yaml", (), tmp_path / "run")
    with pytest.raises(UserError, match="no such run yet; run: eir run-protocol"):
        write_report([run], tmp_path / "report.html", 1)
    assert not (tmp_path / "report.html").exists()
    with run.locked():
        pass
    page = report(tmp_path / "run", pictures=1, out=tmp_path / "report.html")
    assert "no step is evaluated yet" in page.text
    assert "no step is trained yet" in page.text
    assert "nothing is recorded yet" in page.text


def test_seeds_stand_side_by_side(made: Path, copied: Path, tmp_path: Path) -> None:
    manifest = copied / "manifest.yaml"
    text = manifest.read_text().replace("name: evil", "name: other", 1)
    manifest.write_text(text[: text.index("  2:\n")])
    runs = [made / f"runs/evil-seed{seed}" for seed in range(3)]
    page = report(*runs, copied, pictures=0, out=tmp_path / "report.html")
    alls = [json.loads((run / "step-2/results.json").read_text())["all"] for run in runs]
    mean = sum(alls) / 3
    deviation = (sum((value - mean) ** 2 for value in alls) / 2) ** 0.5
    both = f"{mean:.1f} ± {deviation:.1f}"
    assert page.table("run", "seed 0", "seed 1", "seed 2")[1] == ["evil", *(f"{value:.1f}" for value in alls), both]
    header, row = page.table("run", "seeds", "memory")
    assert row[header.index("all")] == both
    assert f"{copied}: not every step is evaluated yet" in page.text
    assert {"run-1-run", "run-4-run", "run-4-confusion"} <= set(page.ids)


def test_runs_that_cannot_be_compared_still_have_their_chapters(made: Path, copied: Path, tmp_path: Path) -> None:
    run = made / "runs/evil-seed0"
    page = report(run, copied, pictures=0, out=tmp_path / "report.html")
    assert "evil: the same seed twice" in page.text
    assert "there is no comparison" in page.text
    assert sum(table[0][:2] == ["after", "old"] for table in page.tables) == 2


def test_where_reports_go(made: Path, copied: Path) -> None:
    runs = [open_run(made / f"runs/evil-seed{seed}") for seed in range(2)]
    assert default_path(runs[:1]) == made / "runs/evil-seed0/report.html"
    assert default_path(runs) == made / "runs/report.html"
    with pytest.raises(UserError, match="--out: the runs lie in different folders"):
        default_path([runs[0], open_run(copied)])
    with pytest.raises(UserError, match=r"--out .*: is a folder; name a file in it"):
        write_report(runs, made, 0)


def test_the_command_needs_neither_torch_nor_data_without_pictures(copied: Path, tmp_path: Path) -> None:
    arguments = ["eir", "report", str(copied), "--pictures", "0", "--set", f"dataset.root={tmp_path / 'gone'}"]
    program = f"import sys; sys.argv = {arguments!r}; from eircli.cli.app import main\n"
    program += "try: main()\nexcept SystemExit as end: assert not end.code\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"report: {copied / 'report.html'}\n")
    assert "Test images" not in parsed(copied / "report.html").text


def test_a_damaged_file_is_an_error_and_the_old_report_stays(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (copied / "report.html").write_text("before")
    (copied / "step-2/results.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["eir", "report", str(copied), "--pictures", "0"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "step-2/results.json: damaged" in capfd.readouterr().err
    assert (copied / "report.html").read_text() == "before"
    (copied / "step-1/journal.jsonl").write_text("[1]\n")
    with pytest.raises(UserError, match="is no journal of a training"):
        read_training(copied / "step-1/journal.jsonl")


def test_many_points_are_thinned_to_means() -> None:
    points = [(float(x), float(x % 7)) for x in range(1, 1202)]
    thin, size = thinned(points)
    assert size == 3
    assert len(thin) == 401 <= MOST_POINTS
    assert thin[0] == pytest.approx((2, (1 + 2 + 3) / 3))
    assert thin[-1] == (1201, 1201 % 7)
    assert thinned(points[:500]) == (points[:500], 1)


@pytest.mark.parametrize("high", [0.003, 0.2, 1, 7, 93, 100, 12345])
def test_ticks_are_round_and_reach_the_end(high: float) -> None:
    found = ticks(0, high, 5)
    assert found[0] == 0
    assert found[-1] >= high * (1 - 1e-9) > found[-2]
    assert 3 <= len(found) <= 8
    assert [float(f"{tick:.2g}") for tick in found] == pytest.approx(found)


def test_class_colours_are_told_apart_by_colour_blind_readers() -> None:
    colours = class_colours()
    assert len({tuple(colour) for colour in colours[1:255].tolist()}) == 254
    for vision in seen(colours[[0, *range(1, 11), 255]]):  # background's grey, ten classes, ignored
        distances = np.linalg.norm(vision[:, None] - vision[None], axis=2)
        assert distances[~np.eye(12, dtype=bool)].min() > 0.08


def test_a_matrix_of_many_classes_is_a_picture_with_every_name() -> None:
    names = [f"class {n} & <b>" for n in range(151)]
    counts = np.random.default_rng(0).integers(0, 50, (151, 151))
    counts[7, 9] = 10**6
    page = Document(confusion_picture(counts, names))
    assert page.text.count("&") == 302, "a name at every row and every column"
    assert [source[:15] for source in page.sources] == ["data:image/png;"]
    first = mistakes_table(counts, names).rows[0]
    assert [cell.text for cell in first] == [names[7], names[9], f"{100 * 10**6 / counts[7].sum():.1f}", "1,000,000"]


@pytest.fixture(scope="module")
def browsed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    """A report in a real browser."""
    if BROWSER is None:
        pytest.skip(f"no browser: none of {', '.join(chromium.NAMES)} is installed")
    folder = tmp_path_factory.mktemp("browser")
    write_report([open_run(made / "runs/evil-seed0")], folder / "report.html", 2)
    with chromium.Page(BROWSER, folder / "profile") as page:
        page.resize(1280)
        page.open((folder / "report.html").as_uri())
        yield page


def test_a_browser_has_no_complaint_and_asks_for_nothing(browsed: chromium.Page) -> None:
    images = browsed.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    assert len(images) > 5
    assert all(width > 0 for width in images)
    kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")
    assert [event for event in browsed.events if event["method"] in kinds] == []
    asked = [e["params"]["request"]["url"] for e in browsed.events if e["method"] == "Network.requestWillBeSent"]
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert sum(url.startswith("file") for url in asked) == 1, "the report itself"


def test_a_browser_sorts_by_click_and_by_key(browsed: chromium.Page) -> None:
    table = "document.querySelector('table.sortable.shaded')"
    column = f"[...{table}.tBodies[0].rows].map(row => row.cells[4].textContent)"
    before = browsed.evaluate(column)
    states = []
    for _ in range(3):
        browsed.evaluate(f"{table}.tHead.rows[0].cells[4].querySelector('button').click()")
        states.append((browsed.evaluate(f"{table}.tHead.rows[0].cells[4].getAttribute('aria-sort')"), browsed.evaluate(column)))
    falling = sorted(before, key=float, reverse=True)
    assert states == [("descending", falling), ("ascending", falling[::-1]), ("none", before)]
    browsed.evaluate(f"{table}.tHead.rows[0].cells[0].querySelector('button').focus()")
    for kind in ("keyDown", "keyUp"):
        browsed.send("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    names = browsed.evaluate(f"[...{table}.tBodies[0].rows].map(row => row.cells[0].textContent)")
    assert names == browsed.evaluate(f"{json.dumps(names)}.toSorted((a, b) => a.localeCompare(b))")
    assert browsed.evaluate(f"{table}.tHead.rows[0].cells[0].getAttribute('aria-sort')") == "ascending"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark"), (390, "light")])
def test_a_browser_fits_it_to_a_phone_and_to_the_dark(browsed: chromium.Page, width: int, scheme: str) -> None:
    browsed.resize(width, phone=width < 500)
    browsed.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    assert browsed.evaluate("document.documentElement.scrollWidth") <= width
    paper = browsed.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 300) == (scheme == "dark")
