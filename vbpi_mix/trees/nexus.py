"""NEXUS text of trees, for MrBayes, DendroPy, FigTree and others.

Files of samples, which MrBayes reads too, have the names of `mrbayes_names`; for its ``sumt``, the matrix
that MrBayes has read must have these. The consensus has the true names, quoted where NEXUS asks for it,
except for those with ``[``, ``]`` or ``;``, at which R's ape fails or reads half of the tree. Where names are
not the true ones, comments say so, and `read_tree_sample` and `read_tree_draws` give the true ones back.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from vbpi_mix.shapes import BranchLengths, Topologies
from vbpi_mix.trees.names import coded_name, mrbayes_names, plain_name
from vbpi_mix.trees.newick import newick_texts, quoted
from vbpi_mix.trees.nexus_reader import CODED_NAMES
from vbpi_mix.trees.summaries import ConsensusTree
from vbpi_mix.trees.topology import unique_topologies


def write_tree_samples(
    taxa: Sequence[str], children: Topologies, branch_lengths: BranchLengths | None = None
) -> str:
    """NEXUS file of tree draws, named rep.1, rep.2, ...; ``sumt`` of MrBayes reads it.

    Args:
        taxa: names in the order of the leaves' numbers.
        children: topologies, [tree, internal, 2].
        branch_lengths: expected substitutions per site, [tree, edge]; written with 9 significant digits.
    """
    labels = [str(number + 1) for number in range(len(taxa))]
    lines = [
        f"   tree rep.{number} = [&U] {text}"
        for number, text in enumerate(newick_texts(children, branch_lengths, labels, digits=9), start=1)
    ]
    return "\n".join([*_head(taxa), *lines, "end;", ""])


def write_trprobs(taxa: Sequence[str], children: Topologies, weights: Float64[np.ndarray, " tree"]) -> str:
    """NEXUS file of topologies and their probabilities, most probable first, as the ``.trprobs`` of MrBayes.

    Args:
        taxa: names in the order of the leaves' numbers.
        children: topologies, [tree, internal, 2]; equal ones are added up, those of weight 0 left out.
        weights: non-negative weights, not normalised, [tree].

    Raises:
        ValueError: if the weights are not finite and non-negative with a positive sum.
    """
    if not (np.all(np.isfinite(weights)) and np.all(weights >= 0) and weights.sum() > 0):
        raise ValueError("expected finite weights >= 0 with a positive sum, got others")
    distinct, inverse, _ = unique_topologies(children)
    probabilities = np.bincount(inverse, weights, minlength=len(distinct)) / weights.sum()
    order = most_probable_first(distinct, probabilities)
    cumulative = np.minimum(np.cumsum(probabilities[order]), 1.0)
    texts = newick_texts(distinct[order], None, [str(number + 1) for number in range(len(taxa))])
    lines = []
    for rank, (probability, total, text) in enumerate(
        zip(probabilities[order].tolist(), cumulative.tolist(), texts, strict=True), start=1
    ):
        weight = np.format_float_positional(probability, trim="0")
        lines.append(f"   tree tree_{rank} [p = {probability:.3f}, P = {total:.3f}] = [&W {weight}] {text}")
    return "\n".join([*_head(taxa), *lines, "end;", ""])


def most_probable_first(
    children: Topologies, probabilities: Float64[np.ndarray, " tree"]
) -> Int64[np.ndarray, " found"]:
    """Indices of the distinct canonical topologies of positive probability, in the order of a ``.trprobs``.

    Ties are put in order of the topologies, so that it does not depend on the order of the trees.
    """
    rows = children.reshape(len(children), 2 * children.shape[1]).astype(">i4")
    # As byte strings whose high bytes come first, rows sort as their numbers do.
    keys = rows.view(f"V{rows.itemsize * rows.shape[1]}")[:, 0]
    order = np.argsort(keys, kind="stable")
    order = order[np.argsort(-probabilities[order], kind="stable")]
    return order[probabilities[order] > 0]


def write_consensus(consensus: ConsensusTree, name: str = "con_majrule") -> str:
    """NEXUS file of an annotated tree, unrooted, in the way of the ``.con.tre`` of MrBayes; FigTree shows it.

    Every branch carries ``prob``, and where there are branch lengths their mean, median, standard deviation
    and 95% (or whatever the summary holds) highest-density interval, under the names that MrBayes gives
    them. The length in the tree itself is the mean; a branch of which no length is known has none.

    Args:
        consensus: the tree.
        name: what to call it.
    """

    def annotate(node: int) -> str:
        text = f"[&prob={consensus.probabilities[node]:.8e}]"
        if consensus.lengths is None or np.isnan(consensus.lengths.mean[node]):
            return text
        mean, sd = consensus.lengths.mean[node], consensus.lengths.sd[node]
        low, high = consensus.lengths.interval[node]
        return (
            f"{text}:{float(mean)!r}[&length_mean={mean:.8e},length_median={consensus.lengths.median[node]:.8e},"
            f"length_sd={sd:.8e},length_95%HPD={{{low:.8e},{high:.8e}}}]"
        )

    suffixes = [annotate(node) for node in range(len(consensus.parents) - 1)]
    labels = [str(number + 1) for number in range(len(consensus.taxa))]
    names = [_shown_name(name) for name in consensus.taxa]
    tokens = [_nexus_token(name) for name in names]
    dimensions = f"   dimensions ntax={len(names)};"
    taxa_block = ["begin taxa;", dimensions, f"   taxlabels {' '.join(tokens)};", "end;"]
    trees_block = ["begin trees;", _translate(tokens)]
    line = f"   tree {name} = [&U] {_nested(consensus, labels, suffixes)}"
    comments = _true_names(names, consensus.taxa)
    return "\n".join(["#NEXUS", *comments, *taxa_block, *trees_block, line, "end;", ""])


def write_consensus_newick(consensus: ConsensusTree) -> str:
    """Newick text of a consensus tree with mean lengths, and support in percent as inner nodes' labels."""
    suffixes = []
    for node in range(len(consensus.parents) - 1):
        support = "" if node < len(consensus.taxa) else f"{100 * consensus.probabilities[node]:.4g}"
        length = ""
        if consensus.lengths is not None and not np.isnan(consensus.lengths.mean[node]):
            length = f":{float(consensus.lengths.mean[node])!r}"
        suffixes.append(support + length)
    return _nested(consensus, [quoted(name) for name in consensus.taxa], suffixes)


def _head(taxa: Sequence[str]) -> list[str]:
    """First lines of a file of samples: comments on the names, and the translation."""
    names = mrbayes_names(taxa)
    return ["#NEXUS", *_true_names(names, taxa), "begin trees;", _translate(names)]


def _true_names(names: Sequence[str], taxa: Sequence[str]) -> list[str]:
    """Comments that tell the true names where others are written, none if all are true."""
    pairs = list(enumerate(zip(names, taxa, strict=True), start=1))
    if all(name == true for _, (name, true) in pairs):
        return []
    others = [_true_name(number, true) for number, (name, true) in pairs if plain_name(name) != true]
    return [CODED_NAMES.decode(), *others]


def _true_name(number: int, name: str) -> str:
    """Comment with a name in full, broken into lines because MrBayes refuses words over 99 characters."""
    coded = coded_name(name)
    return f"[Name {number}: " + "\n".join(coded[i : i + 80] for i in range(0, len(coded), 80)) + "]"


def _translate(tokens: Sequence[str]) -> str:
    pairs = [f"      {number} {token}" for number, token in enumerate(tokens, start=1)]
    return "   translate\n" + ",\n".join(pairs) + ";"


def _shown_name(name: str) -> str:
    """Name itself, coded where it has characters that break readers, or could be taken for a coded one."""
    return coded_name(name) if re.search(r"[\[\];]", name) or plain_name(name) != name else name


def _nexus_token(name: str) -> str:
    """Name as NEXUS takes it: quoted unless of letters, digits, ``.`` and ``-`` (``_`` means a blank)."""
    return name if re.fullmatch(r"(?:[^\W_]|[.-])+", name) else "'" + name.replace("'", "''") + "'"


def _nested(consensus: ConsensusTree, labels: Sequence[str], suffixes: Sequence[str]) -> str:
    """Newick text of a consensus tree, a suffix after every node but the root, children by smallest taxon."""
    num_nodes, num_taxa = len(consensus.parents), len(labels)
    smallest = list(range(num_taxa)) + [num_taxa] * (num_nodes - num_taxa)
    below: list[list[int]] = [[] for _ in range(num_nodes)]
    texts = list(labels) + [""] * (num_nodes - num_taxa)
    for node in range(num_nodes):
        if node >= num_taxa:
            ordered = sorted(below[node], key=smallest.__getitem__)
            texts[node] = "(" + ",".join(texts[child] for child in ordered) + ")"
        if node < num_nodes - 1:
            texts[node] += suffixes[node]
            parent = int(consensus.parents[node])
            below[parent].append(node)
            smallest[parent] = min(smallest[parent], smallest[node])
    return texts[-1] + ";"
