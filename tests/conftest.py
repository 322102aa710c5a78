"""Shared fixtures: shape checking of the package, and what to do where an oracle is absent."""

import os
import pkgutil
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Tests are small: threads of torch and numpy would only wait for each other, long on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PACKAGE = Path(__file__).resolve().parent.parent / "vbpi_mix"


def _checked_modules() -> list[str]:
    """Modules whose annotations are enforced: all but packages and compiled kernels (``_*.py``)."""
    spec = find_spec("vbpi_mix")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    modules = pkgutil.walk_packages(spec.submodule_search_locations, "vbpi_mix.")
    return [m.name for m in modules if not m.ispkg and not m.name.rsplit(".", 1)[-1].startswith("_")]


install_import_hook(_checked_modules(), "beartype.beartype")


def absent(what: str, cure: str) -> None:
    """Skip the running test because ``what`` is absent, or fail it where ``CI=true``."""
    message = f"{what} is absent: {cure}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def find_program(*names: str) -> str:
    """Path of the first of these programs that is on the PATH; skips (in CI: fails) where there is none."""
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    cure = "install it (Debian: apt-get install iqtree mrbayes chromium r-cran-ape)"
    absent(f"the program {' or '.join(names)}", cure)
    raise AssertionError("not reached")


@pytest.fixture
def require_program():
    """Function that returns the path of a program, or skips the test naming it."""
    return find_program


@pytest.fixture
def require_ape() -> str:
    """Path of Rscript where R has the package ape; skips the test otherwise."""
    program = find_program("Rscript")
    if subprocess.run([program, "-e", "library(ape)"], capture_output=True, check=False).returncode:
        absent("R's package ape", "install it (Debian: apt-get install r-cran-ape)")
    return program


@pytest.fixture
def require_reference():
    """Function that returns the path of a file under ``VBPI_MIX_REFERENCE``, or skips the test naming it."""

    def find(relative: str) -> Path:
        root = os.environ.get("VBPI_MIX_REFERENCE")
        path = Path(root or "VBPI_MIX_REFERENCE") / relative
        if not root or not path.exists():
            absent(f"reference data {relative}", "set VBPI_MIX_REFERENCE to the folder of reference data")
        return path

    return find


@pytest.fixture
def require_folder():
    """Function that returns a folder of the system, or skips the test naming it and what installs it."""

    def find(path: Path, package: str) -> Path:
        if not path.is_dir():
            absent(f"the folder {path}", f"install it (Debian: apt-get install {package})")
        return path

    return find


@pytest.fixture
def command(monkeypatch, capsys):
    """Function that runs the command line in this process: exit code, standard output, standard error."""
    from vbpi_mix import cli  # after the hook above

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["vbpi-mix", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        captured = capsys.readouterr()
        code = exit_info.value.code
        return (0 if code is None else code), captured.out, captured.err

    return call
