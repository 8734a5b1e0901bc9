"""What a user gets: lean imports, names that resolve, `kernels` that shadows nothing, a wheel and sdist that work."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dpad_fast
from dpad_fast import info
from dpad_fast._native import extension

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "triton", "numpy", "PIL")


def python(code: str, cwd: Path, *path: Path, **environment: str) -> str:
    """What `code` prints in an interpreter of its own, with `path` in front of the installed packages."""
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environment
    variables["PYTHONPATH"] = os.pathsep.join(map(str, path))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=variables, check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_version_is_stated_once() -> None:
    assert importlib.metadata.version("dpad-fast") == dpad_fast.__version__
    statements = [
        path
        for path in [*ROOT.glob("*.toml"), *ROOT.glob("*.py"), *(ROOT / "dpad_fast").rglob("*.py")]
        if f'"{dpad_fast.__version__}"' in path.read_text(encoding="utf-8")
    ]
    assert statements == [ROOT / "dpad_fast" / "_version.py"]


def test_import_is_lean(tmp_path: Path) -> None:
    code = (
        "import sys, time, json; start = time.perf_counter(); import dpad_fast; "
        "print(json.dumps([time.perf_counter() - start, sorted({m.split('.')[0] for m in sys.modules})]))"
    )
    runs = [json.loads(python(code, tmp_path)) for _ in range(3)]
    assert not set(HEAVY) & set(runs[0][1])
    assert min(seconds for seconds, _ in runs) < 0.2


def test_ops_bring_in_no_package_but_numpy_and_pillow(tmp_path: Path) -> None:
    """Beside torch, so that `import dpad_fast` takes a tenth of a second."""
    code = (
        "import sys, json, torch; before = set(sys.modules); import dpad_fast; dpad_fast.ops.group_advantage; "
        "new = {m.split('.')[0] for m in set(sys.modules) - before}; print(json.dumps(sorted(new)))"
    )
    new = set(json.loads(python(code, tmp_path)))
    assert new - set(sys.stdlib_module_names) <= {"dpad_fast", "numpy", "PIL"}


def test_every_public_name_resolves() -> None:
    for name in dpad_fast.__all__:
        assert getattr(dpad_fast, name) is not None
    assert set(dpad_fast.__all__) <= set(dir(dpad_fast))
    for name in dpad_fast.ops.__all__:
        assert callable(getattr(dpad_fast.ops, name)), f"ops.{name} is not the function but its module"
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        dpad_fast.no_such_name  # noqa: B018


def test_info_prints_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main() == 0
    printed = capsys.readouterr().out
    for expected in (dpad_fast.__version__, "compiler", "group_advantage", "torch built for", "instruction sets used"):
        assert expected in printed


def test_a_broken_extension_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(name: str) -> None:
        raise ImportError("undefined symbol: _Z3foov")

    monkeypatch.setattr(extension.importlib, "import_module", fail)
    with pytest.raises(ImportError, match=r"undefined symbol[\s\S]*built for another Python[\s\S]*dpad_fast.info"):
        extension.load()
    assert info.main() == 1
    assert "undefined symbol" in capsys.readouterr().out
    monkeypatch.setattr(extension, "__file__", str(tmp_path / "_native" / "extension.py"))
    assert "never built" in extension.explain_load_failure(ImportError("x"))


def test_kernels_has_no_init_and_its_link_is_in_git() -> None:
    """With an __init__.py it would shadow Hugging Face's package of that name (see CONTRIBUTING.md)."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    tree = subprocess.run(
        ["git", "ls-files", "-s", "dpad_fast/kernels"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert tree.startswith("120000 ")
    assert os.readlink(ROOT / "dpad_fast" / "kernels") == "../kernels"


def test_kernels_shadows_nothing(tmp_path: Path) -> None:
    other = tmp_path / "kernels"
    other.mkdir()
    (other / "__init__.py").write_text("whose = 'theirs'\n")
    assert python("import kernels; print(kernels.whose)", ROOT, ROOT, tmp_path) == "theirs"
    # Where theirs is not installed, what is found has no file, which transformers takes for absent.
    code = "import importlib.util as u; s = u.find_spec('kernels'); print(s is None or s.origin is None)"
    installed = importlib.util.find_spec("kernels")
    if installed is None or installed.origin is None:
        assert python(code, ROOT, ROOT) == "True"
    available = "from transformers.utils import is_kernels_available; print(is_kernels_available())"
    assert python(available, ROOT, ROOT) == python(available, tmp_path / "kernels")


def test_kernels_are_importable_as_part_of_the_package(tmp_path: Path) -> None:
    code = "import dpad_fast.kernels.group_advantage as k; print(k.__name__, callable(k.launch))"
    assert python(code, tmp_path, TRITON_INTERPRET="1") == "dpad_fast.kernels.group_advantage True"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel built from an sdist built from a copy of this tree, and a folder that it is installed into."""
    for module in ("build", "pybind11", "cmake", "ninja"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("built")
    private = (".git", ".gpu", ".venv*", "build", "dist", "runs", "*.so", "__pycache__", "*.egg-info")
    ignored = shutil.ignore_patterns(*private)
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=ignored)
    run = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(folder / "source")]
    # Whether it builds is asked here, not how fast it runs: without optimisation the compiler takes half the time.
    quick = os.environ | {"CMAKE_ARGS": "-DCMAKE_CXX_FLAGS_RELEASE=-O0", "DPAD_FAST_CUDA_ARCHITECTURES": "90-real"}
    done = subprocess.run(run, env=quick, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target"]
    subprocess.run([*install, str(folder / "site"), str(wheel)], check=True, timeout=300)
    return {"wheel": wheel, "sdist": sdist, "site": folder / "site"}


def test_wheel_works_outside_of_the_repository(built: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import dpad_fast, torch, dpad_fast.kernels.group_advantage as k; from dpad_fast import _C; "
        "print(dpad_fast.__file__, _C.__file__, k.__file__, sep='\\n'); "
        "print(dpad_fast.ops.group_advantage(torch.tensor([0., 1.]), 2, scale='none').tolist()); "
        "print(hasattr(_C, 'cuda_pack'))"
    )
    *files, advantage, cuda = python(code, tmp_path, built["site"]).splitlines()
    assert all(file.startswith(str(built["site"])) for file in files), files
    assert advantage == "[-0.5, 0.5]"
    assert cuda == str(hasattr(extension.C, "cuda_pack"))


def test_wheel_holds_the_files_of_the_report(built: dict[str, Path]) -> None:
    folder = Path("dpad_fast", "evaluate", "report_assets")
    wanted = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()}
    assert folder / "vendor" / "uplot" / "LICENSE" in wanted
    assert {path for path in wanted if not (built["site"] / path).is_file()} == set()


def test_wheel_needs_no_library_of_cuda(built: dict[str, Path]) -> None:
    """It must load where neither driver nor toolkit is: CUDA's runtime is linked in, and looks for a driver late."""
    if shutil.which("readelf") is None:
        pytest.skip("needs readelf")
    (extension,) = (built["site"] / "dpad_fast").glob("_C*.so")
    listed = subprocess.run(["readelf", "-d", str(extension)], check=True, capture_output=True, text=True).stdout
    needed = [line for line in listed.splitlines() if "NEEDED" in line]
    assert needed
    assert not [line for line in needed if "cuda" in line.lower() or "nvidia" in line.lower()]


@pytest.fixture(scope="module")
def unpacked(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that is in the sdist."""
    import tarfile

    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built["sdist"]) as archive:
        # Early releases of 3.10 and 3.11 have no filters.
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (tree,) = folder.iterdir()
    return tree


def test_sdist_holds_all_that_is_in_git_and_no_binary(unpacked: Path) -> None:
    names = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith((".so", ".pyc")) or name.startswith("dpad_fast/kernels/")]
    assert {"CMakeLists.txt", "LICENSE", "csrc/cuda/masks.cu", "kernels/group_advantage.py"} <= names
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=False, capture_output=True, text=True)
    if listed.returncode == 0:
        missing = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file() and name not in names]
        assert missing == []


def test_sdist_passes_its_own_tests_where_it_is_unpacked(built: dict[str, Path], unpacked: Path) -> None:
    """Those that read documents, examples and benchmarks; with the wheel that was built from it."""
    (extension,) = (built["site"] / "dpad_fast").glob("_C*.so")
    shutil.copy(extension, unpacked / "dpad_fast")
    chosen = ["tests/test_readme.py", "tests/bench/test_tables.py", "tests/commands/test_score.py"]
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen],
        cwd=unpacked, env=variables, check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
