"""The house: who may import whom, and what lies where."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from eircli.config.backbones import BACKBONES
from eircli.config.memory_kinds import MEMORY_KINDS
from eircli.config.methods import AnyMethod
from eircli.methods import METHODS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "eircli"

RUNGS = [
    {"common"},
    {"config"},
    {"data", "model", "memory", "engine"},
    {"methods"},
    {"run"},
    {"stages", "reports", "benchmark"},
    {"cli"},
]
"""The rooms of the house; a module imports its own room and those on lower rungs."""

TORCHLESS = {
    "common",
    "config",
    "data/open",
    "run/run",
    "run/results",
    "reports/comparison_tables",
    "reports/tables",
    "reports/html/report",
    "cli",
}
"""Rooms and modules that import no torch, nor anything that does, before one of their functions is called."""

WITH_TORCH = {"common/distributed"}
"""Modules of such rooms that do."""


@cache
def parsed(module: Path) -> ast.Module:
    """A module's syntax tree."""
    return ast.parse(module.read_text(encoding="utf-8"))


@cache
def imports(module: Path, lazy: bool = True) -> set[str]:
    """The modules of the house that a module imports, type checking aside; without `lazy` only when it is imported itself."""
    tree = parsed(module)
    aside = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    if not lazy:
        aside += [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]  # type: ignore[misc]
    left_out = {id(inner) for node in aside for inner in ast.walk(node)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                names.add(submodule if _file(submodule).exists() else str(node.module))
    return names


@cache
def _file(name: str) -> Path:
    plain = ROOT / (name.replace(".", "/") + ".py")
    return plain if plain.exists() else ROOT / name.replace(".", "/") / "__init__.py"


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(module: Path) -> str:
    return ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_rooms_import_only_lower_rungs() -> None:
    rung = {name: number for number, names in enumerate(RUNGS) for name in names}
    for module in modules():
        own = module.relative_to(PACKAGE).parts[0]
        if own in ("__init__.py", "__main__.py", "api.py"):
            continue
        for name in imports(module):
            if name.startswith("eircli."):
                other = name.split(".")[1]
                assert other == own or rung[other] < rung[own], f"{module.relative_to(ROOT)} imports {name}"


def test_the_longest_chain_of_imports_is_short_and_no_circle() -> None:
    graph = {dotted(module): {n for n in imports(module) if n.startswith("eircli.")} for module in modules()}
    on_the_way: list[str] = []

    @cache
    def chain(name: str) -> tuple[str, ...]:
        assert name not in on_the_way, " → ".join([*on_the_way, name])
        on_the_way.append(name)
        longest = max((chain(other) for other in graph[name] - {name}), key=len, default=())
        on_the_way.pop()
        return (name, *longest)

    longest = max((chain(name) for name in graph), key=len)
    assert len(longest) <= 12, " → ".join(longest)


def test_the_surface_imports_no_torch() -> None:
    seen: set[str] = set()

    def visit(name: str) -> None:
        assert name.split(".")[0] not in ("torch", "torchvision"), name
        if name.startswith("eircli") and name not in seen:
            seen.add(name)
            for other in imports(_file(name), lazy=False):
                visit(other)

    for module in modules():
        place = str(module.relative_to(PACKAGE).with_suffix(""))
        if (place in TORCHLESS or place.split("/")[0] in TORCHLESS) and place not in WITH_TORCH:
            visit(dotted(module))


def test_the_top_levels_are_as_agreed() -> None:
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    found -= {name for name in found if name in ignored or name.endswith(".egg-info")}
    assert found == {"eircli", "configs", "tests", "pyproject.toml", "README.md", "LICENSE"}
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == set.union(*RUNGS)
    assert len(rooms) <= 12
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == {
        "__init__.py",
        "__main__.py",
        "api.py",
        "py.typed",
        "README.md",
    }


ROOMS = {
    "memory kind": (set(MEMORY_KINDS), {"memory", "config/memory_kinds.py", "config/methods.py", "config/replay.py"}),
    # In data/shapes.py a star is a shape.
    "method": (set(METHODS), {"methods", "config/methods.py", "config/replay.py", "config/datasets.py", "data/shapes.py"}),
    "backbone": (set(BACKBONES), {"model/backbones", "config/backbones.py"}),
}
"""What each thing's names are, and the rooms that may know them: its own, its table, and settings that declare it."""

EVERYDAY = {"images", "eir"}
"""Names that are words of other things too; only asking for them gives one away."""


def asked_for(tree: ast.AST) -> set[str]:
    """The strings that a module names things by: all there are, and of everyday words those it compares with."""
    strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    questions = [n for n in ast.walk(tree) if isinstance(n, ast.Compare | ast.MatchValue)]
    compared = {n.value for q in questions for n in ast.walk(q) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return (strings - EVERYDAY) | compared


@pytest.mark.parametrize("thing", ROOMS)
def test_nobody_asks_which_one_it_is(thing: str) -> None:
    names, rooms = ROOMS[thing]
    classes = {settings.__name__ for settings in get_args(AnyMethod)}
    for module in modules():
        place = str(module.relative_to(PACKAGE))
        if any(place == room or place.startswith(f"{room}/") for room in rooms):
            continue
        tree = parsed(module)
        assert not asked_for(tree) & names, f"{place} names a {thing}"
        own = {f"eircli.memory.kinds.{n}" for n in MEMORY_KINDS} | {
            f"eircli.model.backbones.{b.module}" for b in BACKBONES.values()
        }
        assert not imports(module) & own, place
        taken = {
            n.name
            for i in ast.walk(tree)
            if isinstance(i, ast.ImportFrom) and i.module in ("eircli.config.methods", "eircli.config.replay")
            for n in i.names
        }
        assert thing != "method" or not taken & classes, f"{place} takes the settings of one method"


def test_few_lines_pass_untyped_mappings() -> None:
    untyped = re.compile(r"(dict|Mapping)\[str, Any\]")
    lines = [line for module in modules() for line in module.read_text(encoding="utf-8").splitlines() if untyped.search(line)]
    assert len(lines) <= 10, lines


SHAPED = ("Float[", "Int[", "UInt8[", "Bool[", "PerPixel", "Scalar")


def test_functions_of_tensors_state_shapes() -> None:
    """In a docstring or by jaxtyping; methods without a docstring have that of the method they override."""
    for module in modules():
        tree = parsed(module)
        overriding = {id(f) for c in ast.walk(tree) if isinstance(c, ast.ClassDef) and c.bases for f in c.body}
        for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")):
            arguments = [*function.args.args, *function.args.kwonlyargs]
            types = " ".join(ast.unparse(t) for t in [*(a.annotation for a in arguments), function.returns] if t)
            text = ast.get_docstring(function) or ""
            if re.search(r"Tensor|NDArray|UInt8Array", types) and (text or id(function) not in overriding):
                stated = "[" in text or "any shape" in text or any(kind in types for kind in SHAPED)
                local = not text and function.col_offset > 4
                assert stated or local, f"{module.relative_to(ROOT)}:{function.lineno} {function.name}"


def readmes() -> list[Path]:
    return [ROOT / "README.md", ROOT / ".github/CONTRIBUTING.md", ROOT / "configs/README.md", *sorted(PACKAGE.rglob("README.md"))]


PLACEHOLDER = re.compile(r"NAME|FAMILY|my-")


def test_the_front_door_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 2250


@pytest.mark.parametrize("readme", readmes(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    for link in links:
        file, _, anchor = link.partition("#")
        target = (readme.parent / file).resolve() if file else readme
        assert target.exists(), f"{readme}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{readme}: {link}"
    named = re.findall(r"(?:configs|eircli)/[\w./-]+\.(?:py|yaml|md)", text)
    assert [name for name in named if not (ROOT / name).exists() and not PLACEHOLDER.search(name)] == []


def test_sections_that_docstrings_point_to_are_there() -> None:
    method = (PACKAGE / "methods/README.md").read_text(encoding="utf-8")
    for module in modules():
        for section in re.findall(r"methods/README\.md §([\d.]*\d)", module.read_text(encoding="utf-8")):
            assert re.search(rf"^(#+ |\*\*|- \*\*)?{re.escape(section)}\.? ", method, re.MULTILINE), f"{module}: §{section}"


def test_the_annotated_tree_is_the_real_one() -> None:
    readme = (PACKAGE / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```text\n(eircli/.*?)```", readme, re.DOTALL)
    assert block
    named: set[str] = set()
    folders: dict[int, str] = {}
    for line in block[1].splitlines():
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        word = line.split()[0]
        parent = "".join(folders[level] for level in range(depth))
        if word.endswith("/"):
            folders = {level: name for level, name in folders.items() if level < depth} | {depth: word}
        else:
            named.add(parent + word)
    real = {str(path.relative_to(ROOT)) for path in modules() if path.name != "__init__.py" or path.parent == PACKAGE}
    assert named == real


def test_no_file_has_outgrown_its_room() -> None:
    for module in modules():
        assert len(module.read_text(encoding="utf-8").splitlines()) <= 300, module
