"""The bundled benchmark alignments DS1 to DS8, with bootstrap trees that span their supports.

The data are files of the package, or of the folder ``data`` of a source tree. ``manifest.json`` describes
them, and ``data/build.py`` of the source tree makes them.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from vbpi_mix.alignment import Alignment, read_alignment
from vbpi_mix.errors import AlignmentError


@dataclass(frozen=True)
class DatasetInfo:
    """What the manifest says about a bundled data set.

    Attributes:
        name: ``DS1`` to ``DS8``, as in the literature.
        num_taxa: Taxa of the alignment.
        num_sites: Sites of the alignment.
        num_patterns: Distinct site patterns, missing symbols being equal.
        treebase_id: The matrix in TreeBASE.
        citation: The study the data stand for in the literature.
        alignment_path: The alignment, FASTA.
        alignment_sha256: Its hexadecimal SHA-256.
        support_path: Table of distinct unrooted topologies of bootstrap trees, with counts.
        support_sha256: Its hexadecimal SHA-256.
        num_support_trees: Bootstrap trees in the table: the sum of the counts.
        num_support_topologies: Distinct topologies among them.
        num_support_replicates: Replicates of the bootstrap: the first is there with all its trees, further
            ones with the topologies that add to the support.
        support_program: Program that made the trees, with its version.
        support_command: Its command line for the first replicate.
        support_seed: Its seed there; each further replicate has the next.
    """

    name: str
    num_taxa: int
    num_sites: int
    num_patterns: int
    treebase_id: str
    citation: str
    alignment_path: Path
    alignment_sha256: str
    support_path: Path
    support_sha256: str
    num_support_trees: int
    num_support_topologies: int
    num_support_replicates: int
    support_program: str
    support_command: str
    support_seed: int


def dataset_names() -> tuple[str, ...]:
    """Names of the bundled data sets."""
    return tuple(_manifest())


def dataset_info(name: str) -> DatasetInfo:
    """Description of a bundled data set.

    Args:
        name: Such as ``DS1``, in either case.

    Raises:
        AlignmentError: If there is no such data set.
    """
    entry = _manifest().get(name.upper())
    if entry is None:
        raise AlignmentError(
            f"expected the name of a bundled data set, one of {', '.join(_manifest())}; came {name!r}"
        )
    alignment, support = entry["alignment"], entry["support"]
    return DatasetInfo(
        name=name.upper(),
        num_taxa=alignment["taxa"],
        num_sites=alignment["sites"],
        num_patterns=alignment["patterns"],
        treebase_id=entry["treebase_id"],
        citation=entry["citation"],
        alignment_path=_data_folder() / alignment["file"],
        alignment_sha256=alignment["sha256"],
        support_path=_data_folder() / support["file"],
        support_sha256=support["sha256"],
        num_support_trees=support["trees"],
        num_support_topologies=support["topologies"],
        num_support_replicates=support["replicates"],
        support_program=support["program"],
        support_command=support["command"],
        support_seed=support["seed"],
    )


def load_dataset(name: str) -> Alignment:
    """Alignment of a bundled data set.

    Args:
        name: Such as ``DS1``, in either case.

    Raises:
        AlignmentError: If there is no such data set.
    """
    return read_alignment(dataset_info(name).alignment_path)


def _data_folder() -> Path:
    """Folder of the manifest: inside an installed package, or ``data`` of a source tree."""
    package = Path(str(files("vbpi_mix")))
    for folder in (package / "_data", package.parent / "data"):
        if (folder / "manifest.json").is_file():
            return folder
    raise AlignmentError(
        f"expected the bundled data in {package / '_data'} or {package.parent / 'data'}, they are missing; "
        "install the package again"
    )


@cache
def _manifest() -> dict[str, Any]:
    """Entries of the manifest by data set."""
    return json.loads((_data_folder() / "manifest.json").read_text(encoding="utf-8"))["datasets"]
