"""The house: who may import whom, and what lies where."""

import ast
from functools import cache
from pathlib import Path

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

TORCHLESS = {"common", "config", "data/open", "run/run", "run/results", "reports/comparison_tables", "reports/tables", "cli"}
"""Rooms and modules that import no torch, nor anything that does, before one of their functions is called."""


def imports(module: Path, lazy: bool = True) -> set[str]:
    """The modules of the house that a module imports, type checking aside; without `lazy` only when it is imported itself."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
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
        if own in ("__init__.py", "__main__.py"):
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
        if place in TORCHLESS or place.split("/")[0] in TORCHLESS:
            visit(dotted(module))


def test_the_top_levels_are_as_agreed() -> None:
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    found -= {name for name in found if name in ignored or name.endswith(".egg-info")}
    assert found == {"eircli", "configs", "tests", "pyproject.toml", "README.md", "LICENSE"}
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == set.union(*RUNGS)
    assert len(rooms) <= 12
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == {"__init__.py", "__main__.py", "README.md"}


def test_no_file_has_outgrown_its_room() -> None:
    for module in modules():
        assert len(module.read_text(encoding="utf-8").splitlines()) <= 300, module
