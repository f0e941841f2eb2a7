"""The house: who may import whom, and what lies where."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "eircli"

RUNGS = [
    {
        "errors",
        "launch",
        "seeds",
        "types",
        "budget",
        "orders",
        "protocols",
        "method_settings",
        "dataset_settings",
        "manifest",
        "explain",
        "recipe",
        "rundir",
        "progress",
        "__init__",
    },
    {"data", "model", "memory", "engine"},
    {"methods"},
    {"workbench"},
    {"stages", "report"},
    {"benchmark", "comparison_report", "benchmark_report", "options"},
    {"many_runs", "bench_command"},
    {"cli"},
    {"__main__"},
]
TORCHLESS = RUNGS[0] | {
    "workbench",
    "report",
    "comparison_report",
    "options",
    "many_runs",
    "benchmark_report",
    "bench_command",
    "cli",
}


def place(module: Path) -> str:
    """The rung's member a module belongs to: a module of the top level, or a package."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> set[str]:
    """The dotted names of all modules that a module imports, type checking aside."""
    names = set()
    tree = ast.parse(module.read_text(encoding="utf-8"))
    checking = {
        id(n)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for n in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in checking:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "eircli" else {str(node.module)}
    return names


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_packages_import_only_lower_rungs() -> None:
    rung = {name: number for number, names in enumerate(RUNGS) for name in names}
    assert {place(module) for module in modules()} <= rung.keys()
    for module in modules():
        own = place(module)
        for name in imports(module):
            if name.startswith("eircli."):
                other = name.split(".")[1]
                if other == "__version__" or other == own:
                    continue
                sideways = rung[own] == rung[other] == 0
                assert sideways or rung[other] < rung[own], f"{module.relative_to(ROOT)} imports {name}"


def test_no_cycles() -> None:
    graph = {}
    for module in modules():
        name = ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = {other for other in imports(module) if other.startswith("eircli.") and other != name}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join([*path, name])
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_surface_imports_no_torch() -> None:
    for module in modules():
        if place(module) in TORCHLESS:
            assert not any(name.split(".")[0] in ("torch", "torchvision") for name in imports(module)), module


def test_top_level_is_as_agreed() -> None:
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    found -= {name for name in found if name in ignored or name.endswith(".egg-info")}
    assert found == {"eircli", "configs", "tests", "pyproject.toml", "README.md", "LICENSE"}


def test_the_tree_in_the_readme_is_the_real_one() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
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
