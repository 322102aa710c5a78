"""The package as a whole: what importing it costs and changes, what it needs, what its files may name."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vbpi_mix
import vbpi_mix.shapes

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vbpi_mix"
HEAVY = ("Bio", "arviz_stats", "dendropy", "ete3", "matplotlib", "numba", "rich", "scipy", "torch")
DISTRIBUTIONS = {"Bio": "biopython", "PIL": "pillow"}
"""Distributions that are not named as the module that they hold; elsewhere ``_`` and ``-`` are the same."""

UNNAMEABLE = tuple(
    "".join(parts).encode()
    for parts in (
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("pypi", ".org"),
        ("files.python", "hosted"),
        ("debian", ".org"),
    )
)
"""Places of one machine, and hosts of package registries; put together here so that this file has none."""

REFERENCE_FOLDER = "".join(("shared", "/data")).encode()
"""Folder of reference data that only ``.ci/run`` may name."""


def run_python(code: str) -> str:
    """Standard output of a fresh interpreter, in which warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def normalised(distribution: str) -> str:
    """Name of a distribution as registries compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def project() -> dict:
    """The table ``project`` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def required(requirements: list[str]) -> set[str]:
    """Names of the distributions that requirements ask for."""
    return {normalised(re.match(r"[A-Za-z0-9._-]+", text).group()) for text in requirements}


def project_files() -> list[Path]:
    """Files of the project: those that git knows or would add, or what an unpacked archive holds."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        paths = [ROOT / name for name in names.split("\0") if name]
    else:
        folders = ("vbpi_mix", "data", "benchmarks", "tests", "docs", ".ci")
        paths = [*ROOT.glob("*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]


def test_importing_the_package_is_quick_and_loads_nothing_heavy():
    code = f"""
import sys, time
began = time.perf_counter()
import vbpi_mix
print(time.perf_counter() - began, *set({HEAVY!r}) & set(sys.modules))
"""
    outputs = [run_python(code).split() for _ in range(3)]
    assert [loaded for _, *loaded in outputs] == [[], [], []]
    # A few milliseconds on an idle machine; the best of three is robust against a busy one.
    assert min(float(seconds) for seconds, *_ in outputs) < 0.5


def test_importing_the_command_line_loads_no_framework():
    code = "import sys, vbpi_mix.cli; print(*{'torch', 'numba', 'scipy'} & set(sys.modules))"
    assert run_python(code).split() == []


def test_importing_all_modules_changes_no_global_state():
    # Other packages are imported first: what they change is not ours.
    code = """
import importlib, logging, os, pkgutil, random, signal, warnings
import array_api_compat.torch, jaxtyping, llvmlite, numba, numpy, pydantic, rich, scipy.special, torch, typer
import tomli_w
import vbpi_mix

def state():
    return {
        "numpy errors": numpy.geterr(),
        "numpy seed": str(numpy.random.get_state(legacy=False)),
        "random seed": random.getstate(),
        "torch seed": torch.initial_seed(),
        "torch generator": torch.get_rng_state().tolist(),
        "torch dtype": torch.get_default_dtype(),
        "torch gradients": torch.is_grad_enabled(),
        "torch threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch determinism": torch.are_deterministic_algorithms_enabled(),
        "numba threads": numba.get_num_threads(),
        "warnings": list(warnings.filters),
        "log handlers": list(logging.getLogger().handlers),
        "environment": dict(os.environ),
        "interrupt": signal.getsignal(signal.SIGINT),
        "terminate": signal.getsignal(signal.SIGTERM),
        "working directory": os.getcwd(),
    }

numba.get_num_threads()  # starts numba's threads, which changes the number of torch's
before = state()
names = [module.name for module in pkgutil.walk_packages(vbpi_mix.__path__, "vbpi_mix.")]
assert len(names) > 40
for name in names:
    importlib.import_module(name)
after = state()
print(*(key for key in before if before[key] != after[key]), sep=", ")
"""
    assert run_python(code).strip() == ""


def test_the_package_exports_few_names_that_all_exist():
    assert len(vbpi_mix.__all__) <= 20
    assert len(set(vbpi_mix.__all__)) == len(vbpi_mix.__all__)
    assert [name for name in vbpi_mix.__all__ if not hasattr(vbpi_mix, name)] == []


def test_version_is_that_of_the_project():
    assert vbpi_mix.__version__ == project()["version"]


def test_every_module_says_what_it_is():
    # ruff asks for the docstrings of public modules and functions; private modules are our own rule.
    silent = [
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_every_axis_name_is_in_the_legend():
    array = r"""(?:Bool|Int|Float)(?:8|32|64)?\[[\w.]+,\s*"([^"]*)"\s*\]"""
    sources = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    names = " ".join(re.findall(array, sources)).split()
    used = {name for name in names if re.fullmatch(r"\*?[a-z]\w+", name)}
    assert {"tree", "*batch", "parameter_and_two"} < used
    assert used - set(re.findall(r"``(\*?\w+)``", vbpi_mix.shapes.__doc__)) == set()


def test_every_imported_distribution_is_declared():
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"vbpi_mix"}
    declared = required(project()["dependencies"])
    assert {normalised(DISTRIBUTIONS.get(name, name)) for name in foreign} - declared == set()


def test_constraints_pin_every_declared_dependency_once():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9.]*(b[0-9]+)?", pin)] == []
    names = [normalised(pin.partition("==")[0]) for pin in pins]
    assert len(set(names)) == len(names)
    extras = project()["optional-dependencies"].values()
    declared = required(project()["dependencies"]).union(*map(required, extras))
    assert declared - set(names) == set()


@pytest.mark.parametrize("text", UNNAMEABLE, ids=bytes.decode)
def test_no_file_names_a_place_of_one_machine_or_a_registry(text):
    naming = [path.relative_to(ROOT).as_posix() for path in project_files() if text in path.read_bytes()]
    assert naming == []


def test_only_the_check_script_names_the_folder_of_reference_data():
    files = [path for path in project_files() if REFERENCE_FOLDER in path.read_bytes()]
    assert [path.relative_to(ROOT).as_posix() for path in files] == [".ci/run"]
