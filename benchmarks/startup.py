"""Claim: help within 0.3 s; a first run, compiler included, within 120 s.

Times ``vbpi-mix --help``, one run of DS1 with an empty cache of compiled code, and one with the cache warm.

    python benchmarks/startup.py [--repeats 10]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import save


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Wall-clock time of a command."""
    began = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=10)
    chosen = parser.parse_args()
    program = str(Path(sys.executable).parent / "vbpi-mix")
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": f"{folder}/cache"}

        def run(name: str) -> float:
            command = [program, "run", "--dataset", "DS1", "--runs", "1", "--out", f"{folder}/{name}"]
            return seconds(command, environment)

        save(
            "startup",
            {
                "help_seconds": [seconds([program, "--help"], environment) for _ in range(chosen.repeats)],
                "run_help_seconds": [
                    seconds([program, "run", "--help"], environment) for _ in range(chosen.repeats)
                ],
                "first_run_seconds": run("first"),
                "second_run_seconds": run("second"),
            },
        )


if __name__ == "__main__":
    main()
