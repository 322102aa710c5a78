"""The directory of a run: which files it has, how they are written, and who may write them.

========================  =============================================================================
``config.toml``           the resolved configuration: a run can be repeated from it
``metrics.jsonl``         one line of training progress a record
``checkpoint.pt``         everything that training needs to go on, bit for bit
``result.json``           marginal likelihood, bounds, diagnostics, versions (``vbpi_mix.results.result``)
``support.trees.tsv.gz``  trees that the support is built from, where the run made them
``posterior.npz``         networks and correlations after the refit, corrected topology probabilities
``posterior.run1.t``      importance-resampled trees in NEXUS, for MrBayes' ``sumt`` and others; ``run2``
``posterior.run1.p``      their likelihoods, priors, lengths and parameters, for ``sump`` and Tracer; ``run2``
``topologies.trprobs``     topologies with posterior probabilities in NEXUS
``consensus.con.tre``     majority-rule consensus tree in NEXUS, for FigTree
``consensus.nwk``         the same in Newick, with supports as labels of the inner nodes
``ccd_map.tre``           most probable tree of the posterior's conditional clade distribution, for FigTree
``sbn_map.tre``           most probable topology of the mixture of subsplit networks, for FigTree
``mcc.tre``               maximum clade credibility tree, for FigTree
``splits.tsv``            splits with probabilities and branch lengths
``credible_sets.tsv``     topologies of the 99% credible set
``report.html``           all of this for people, in one page
========================  =============================================================================

Every file appears whole or not at all (`atomic_write`), and only one process at a time writes in a
directory (`lock`).

Several independent runs of an analysis are such directories by themselves, ``run1``, ``run2`` and so on, in
one that combines them (`members`). It has no ``metrics.jsonl``, ``checkpoint.pt`` and ``posterior.npz`` of
its own, and of the ``.t`` and ``.p`` files one for each run.
"""

import fcntl
import json
import math
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vbpi_mix.errors import NO_ROOM, RunDirectoryError


@dataclass(frozen=True)
class RunDirectory:
    """Paths of a run's files; nothing is created or read before a method asks for it.

    Attributes:
        path: The directory.
        command: Command of ``vbpi-mix`` that makes such runs.
    """

    path: Path
    command: str = "run"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        """Training progress, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """State of training."""
        return self.path / "checkpoint.pt"

    @property
    def support_trees(self) -> Path:
        """Trees that the support is built from, where the run made them."""
        return self.path / "support.trees.tsv.gz"

    @property
    def result(self) -> Path:
        """What the run found."""
        return self.path / "result.json"

    @property
    def final_posterior(self) -> Path:
        """Networks and correlations after the refit, and corrected topology probabilities, as arrays."""
        return self.path / "posterior.npz"

    def member(self, number: int) -> "RunDirectory":
        """Directory of one of several runs that are combined here, counted from 1."""
        return RunDirectory(self.path / f"run{number}", self.command)

    def members(self) -> tuple["RunDirectory", ...]:
        """Directories of the runs that are combined here, in order; itself where it holds a single run."""
        found: list[RunDirectory] = []
        if self.config.exists() and not self.checkpoint.exists():
            while self.member(len(found) + 1).config.exists():
                found.append(self.member(len(found) + 1))
        return tuple(found) or (self,)

    @property
    def posterior_trees(self) -> Path:
        """Importance-resampled trees of the first run, or of the first half of the draws of a single one."""
        return self.run_trees(1)

    def run_trees(self, number: int) -> Path:
        """Importance-resampled trees of a run, or of a half of the draws of a single one, counted from 1."""
        return self.path / f"posterior.run{number}.t"

    def run_parameters(self, number: int) -> Path:
        """Likelihoods, priors, tree lengths and parameters of these trees."""
        return self.path / f"posterior.run{number}.p"

    @property
    def topology_probabilities(self) -> Path:
        """Topologies with their posterior probabilities."""
        return self.path / "topologies.trprobs"

    @property
    def consensus(self) -> Path:
        """Majority-rule consensus tree."""
        return self.path / "consensus.con.tre"

    @property
    def consensus_newick(self) -> Path:
        """Majority-rule consensus tree in Newick."""
        return self.path / "consensus.nwk"

    @property
    def ccd_map(self) -> Path:
        """Most probable tree of the conditional clade distribution."""
        return self.path / "ccd_map.tre"

    @property
    def sbn_map(self) -> Path:
        """Most probable topology of the mixture."""
        return self.path / "sbn_map.tre"

    @property
    def mcc(self) -> Path:
        """Maximum clade credibility tree."""
        return self.path / "mcc.tre"

    @property
    def splits(self) -> Path:
        """Splits with their probabilities and branch lengths."""
        return self.path / "splits.tsv"

    @property
    def credible_sets(self) -> Path:
        """Topologies of the largest credible set."""
        return self.path / "credible_sets.tsv"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    def holds_run(self) -> bool:
        """Whether a run has written here."""
        return any(file.exists() for file in (self.config, self.metrics, self.checkpoint, self.result))

    def require_new(self) -> None:
        """Refuse a directory that already holds a run.

        Raises:
            RunDirectoryError: It does, or the path is not a directory.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunDirectoryError(
                f"{self.path}: expected a directory for the run, found a file; choose another --out"
            )
        if self.holds_run():
            raise RunDirectoryError(
                f"{self.path}: already holds a run; continue it with --resume, or choose another --out"
            )

    def require_run(self) -> None:
        """Refuse a directory that holds no run.

        Raises:
            RunDirectoryError: It is missing, or lacks the configuration.
        """
        if not self.path.is_dir():
            raise RunDirectoryError(f"{self.path}: expected the directory of a run, but there is none")
        if not self.config.exists():
            raise RunDirectoryError(
                f"{self.path}: expected the directory of a run, but {self.config.name} is missing in it; "
                f"give the folder that was --out of 'vbpi-mix {self.command}', or, if that run was stopped "
                "before it saved anything, start it again without --resume"
            )

    def require_checkpoint(self) -> None:
        """Refuse a run that has not saved its state yet.

        Raises:
            RunDirectoryError: The directory holds no run, or one without a checkpoint.
        """
        self.require_run()
        if not self.checkpoint.exists():
            raise RunDirectoryError(
                f"{self.path}: this run has not saved its state yet; continue it with "
                f"'vbpi-mix {self.command} --resume'"
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory, created if need be, until the block ends or the process dies.

        Temporary files that a process which died left behind are removed.

        Raises:
            RunDirectoryError: Another process holds it, or it cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / ".lock", "a+")  # noqa: SIM115 (closed by the with below)
        except OSError as error:
            raise RunDirectoryError(
                f"{self.path}: cannot write there ({error.strerror}); choose another --out"
            ) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise RunDirectoryError(
                    f"{self.path}: in use by process {file.read().strip() or 'unknown'}; "
                    "wait for it, or choose another --out"
                ) from None
            try:
                file.truncate(0)
                os.write(file.fileno(), f"{os.getpid()}\n".encode())
            except OSError as error:
                raise unwritable(self.path / ".lock", error) from None
            for remnant in self.path.glob(".*.tmp"):
                remnant.unlink()
            yield


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Path of a temporary file to fill, which then takes the place of ``path`` in one step.

    The file is written beside its destination, flushed to disk, and renamed over it: whoever reads
    ``path``, whatever happens meanwhile, finds the old content or the new, whole. If the block raises, the
    old content stays.

    Raises:
        RunDirectoryError: The file cannot be written; also in place of an OSError of the block.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
        flush_to_disk(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise unwritable(path, error) from None
        raise


def unwritable(path: Path, error: OSError) -> RunDirectoryError:
    """The error to raise for a file that could not be written."""
    if error.errno in NO_ROOM:
        cure = "make room on the disk; a run continues from its last checkpoint with --resume"
    else:
        cure = "choose another place or name with --out"
    return RunDirectoryError(f"{path}: cannot be written ({error.strerror or error}); {cure}")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_new_text(path: Path, text: str) -> None:
    """Write a text file where there is none yet.

    Raises:
        RunDirectoryError: There is one, or it cannot be written.
    """
    if path.exists():
        raise RunDirectoryError(f"{path}: exists already and is not overwritten; choose another name")
    write_text(path, text)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text of plain values.

    Raises:
        ValueError: A number is not finite: JSON has no such thing, and most readers reject it.
    """
    return json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)


def read_json_lines(path: Path, numbers: Collection[str] = ()) -> list[dict[str, Any]]:
    """Records of a file with one JSON object a line, up to the first line that is damaged or cut short.

    Args:
        path: The file.
        numbers: Fields that must be there and finite numbers in a line that is not damaged.
    """
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or not all(math.isfinite(record[name]) for name in numbers):
                break
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            break
        records.append(record)
    return records


def append_json_line(path: Path, record: dict[str, Any]) -> None:
    """Append one record to a text file and hand it to the system at once.

    Raises:
        RunDirectoryError: The file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(to_json(record) + "\n")
    except OSError as error:
        raise unwritable(path, error) from None


def flush_to_disk(path: Path) -> None:
    """Wait until the content of a file, or the entries of a directory, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
