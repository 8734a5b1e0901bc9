"""House rules that a program can check: who imports whom, how long files are, that tests say what they hold."""

from __future__ import annotations

import ast
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A module imports from its own row and from rows above it. Rows are files or folders of dpad_fast/.
LAYERS = (
    ("_version",),
    # `Target.from_row` and `images_from` read rows with coco_mask and what else begins with "_" here.
    (
        *("_native", "_target", "types", "files", "pictures", "model_size", "hub", "terminal", "row_errors"),
        *("timer", "lock", "workers", "cached"),
        *("coco_mask", "_coco_runs", "_mask_geometry", "_row_columns", "_row_values", "_row_target"),
        *("_row_grounding", "row_images"),
    ),
    ("kernels", "reference"),
    ("ops",),
    ("data", "checkpoints", "clip", "segmenters"),
    ("rewards",),
    ("train",),
    ("evaluate",),
    ("experiment",),
    ("demo", "serve"),
    ("integrations", "testing"),
    ("info", "commands"),
    ("cli", "__main__"),
)
ROW = {name: row for row, names in enumerate(LAYERS) for name in names}
Graph = Mapping[str, set[str]]


def modules() -> dict[str, Path]:
    """Every module of the package with its file; those of kernels/ under the name that they are imported by."""
    found = {}
    for file in sorted((ROOT / "dpad_fast").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if "kernels" not in parts:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found | {f"dpad_fast.kernels.{file.stem}": file for file in (ROOT / "kernels").glob("*.py")}


def imports(tree: ast.AST) -> Iterator[str]:
    """Every name that is imported, inside functions and for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph() -> dict[str, set[str]]:
    """Per module the modules of the package that it imports; the package itself, which lists all names, is left out."""
    files = modules()
    edges: dict[str, set[str]] = {name: set() for name in files if name != "dpad_fast"}
    for name in edges:
        for wanted in imports(ast.parse(files[name].read_text(encoding="utf-8"))):
            while wanted and wanted not in edges:
                wanted = wanted.rpartition(".")[0]
            if wanted and wanted != name:
                edges[name].add(wanted)
    return edges


def circles(edges: Graph) -> list[list[str]]:
    """Groups of nodes that reach one another."""
    reach = {node: set(targets) for node, targets in edges.items()}
    for middle in edges:
        for node in edges:
            if middle in reach[node]:
                reach[node] |= reach[middle]
    groups = {frozenset(n for n in reach[node] if node in reach.get(n, ())) for node in edges if node in reach[node]}
    return sorted(sorted(group) for group in groups)


def folders(edges: Graph, depth: int) -> dict[str, set[str]]:
    """The same graph between folders, `depth` levels below the package; a file that lies higher stands for itself."""
    merged: dict[str, set[str]] = defaultdict(set)
    for name, targets in edges.items():
        mine = ".".join(name.split(".")[: depth + 1])
        merged[mine] |= {t for target in targets if (t := ".".join(target.split(".")[: depth + 1])) != mine}
    return {name: {t for t in targets if t in merged} for name, targets in merged.items()}


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [["b", "c"]]
    edges = {"p.x.a": {"p.y.b"}, "p.y.b": set(), "p.y.c": {"p.x.d"}, "p.x.d": set()}
    assert circles(edges) == []
    assert circles(folders(edges, 1)) == [["p.x", "p.y"]]


def test_no_import_circle_between_modules_or_folders() -> None:
    edges = graph()
    assert circles(edges) == []
    for depth in (1, 2):
        assert circles(folders(edges, depth)) == []


def test_layers_import_from_above_only() -> None:
    wrong = []
    for name, targets in graph().items():
        place = name.split(".")[1]
        assert place in ROW, f"{name}: say in LAYERS where {place} belongs"
        wrong += [f"{name} imports {target}" for target in sorted(targets) if ROW[target.split(".")[1]] > ROW[place]]
    assert wrong == []


def test_a_package_is_imported_by_no_file_of_its_own() -> None:
    """`from dpad_fast.ops import x` inside dpad_fast/ops runs the package's own list of names: a hidden circle."""
    found = []
    for name, targets in graph().items():
        found += [f"{name} imports {target}" for target in targets if name.startswith(f"{target}.")]
    assert found == []


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, check=False, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_files_are_short() -> None:
    long = {
        str(file.relative_to(ROOT)): count
        for file in tracked("*.py", "*.cpp", "*.h", "*.cu", "*.cuh")
        if (count := len(file.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}


def test_every_test_module_says_in_a_line_what_it_holds() -> None:
    silent = []
    for file in sorted((ROOT / "tests").rglob("*.py")):
        lines = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").splitlines()
        if not lines or not lines[0].endswith("."):
            silent.append(str(file.relative_to(ROOT)))
    assert silent == []


def test_core_knows_neither_python_nor_torch() -> None:
    for file in sorted((ROOT / "csrc").rglob("*.[ch]*")):
        if "bindings" not in str(file.relative_to(ROOT)):
            assert not {"Python.h", "pybind11", "torch"} & {
                word for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#include")
                for word in line.replace("/", " ").replace("<", " ").replace(">", " ").replace('"', " ").split()
            }, file  # fmt: skip


def test_kernels_has_no_init() -> None:
    """transformers imports Hugging Face's `kernels`; a package of that name beside it would be found first."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
