"""What every benchmark records: where, when, and with what it was measured."""

import csv
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("numpy", "numba", "scipy", "torch", "arviz-stats")


def machine() -> dict[str, Any]:
    """Processor, cores, memory and system."""
    processor = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "system": platform.platform(),
    }


def commit() -> str:
    """The commit that is checked out, with ``-dirty`` where code or data differ from it; results may."""
    root = ["git", "-C", str(RESULTS.parent.parent)]
    found = subprocess.run([*root, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    if found.returncode != 0:
        return "unknown"
    measured = ["vbpi_mix", "data", "benchmarks", ":(exclude)benchmarks/results"]
    changed = subprocess.run([*root, "diff", "--quiet", "HEAD", "--", *measured]).returncode != 0
    return found.stdout.strip() + ("-dirty" if changed else "")


def provenance() -> dict[str, Any]:
    """Commit, versions and machine."""
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "machine": machine(),
        "command": [
            Path(sys.argv[0]).name,
            *without_local_paths(sys.argv[1:]),
        ],
    }


def save(name: str, content: dict[str, Any]) -> None:
    """Write ``results/<name>.json`` with the provenance, whole or not at all."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(
        json.dumps({**content, "provenance": provenance()}, indent=1, allow_nan=False) + "\n"
    )
    temporary.replace(path)
    print(path)


def split_options(arguments: list[str]) -> tuple[list[str], list[str]]:
    """A script's own arguments, and the options of ``vbpi-mix run`` that follow ``--``."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def without_local_paths(value: Any, out: Path | None = None) -> Any:
    """The same plain value with folders of this machine replaced by names that mean something elsewhere."""
    match value:
        case str():
            folders = [
                (os.environ.get("VBPI_MIX_REFERENCE"), "$VBPI_MIX_REFERENCE"),
                (str(RESULTS.parent.parent), "."),
                (str(Path(sys.executable).parent), "$VENV/bin"),
                (out and str(out), "$OUT"),
                (f"{Path.home()}/", "~/"),
            ]
            for folder, name in folders:
                value = value.replace(folder, name) if folder else value
            return value
        case dict():
            return {key: without_local_paths(item, out) for key, item in value.items()}
        case list():
            return [without_local_paths(item, out) for item in value]
        case _:
            return value


def load(results: Path, pattern: str) -> dict[str, dict[str, Any]]:
    """Contents of the result files that match, by path relative to ``results``, in the order of the paths."""
    return {
        path.relative_to(results).as_posix(): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(results.glob(pattern))
    }


def published() -> dict[tuple[str, str, str], str]:
    """Published figures by quantity, method and data set; empty where ``published.csv`` is absent."""
    path = Path(os.environ.get("VBPI_MIX_REFERENCE", "")) / "published.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as file:
        return {
            (row["quantity"], row["method"], name): row[name]
            for row in csv.DictReader(file)
            for name in row
            if name.startswith("DS") and row[name]
        }


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
