"""Trees to and from the objects of ete3 and DendroPy: names and branch lengths kept, unrooted.

A root of two children is dissolved on the way in. ete3 has no absent branch length, its default is 1; so a
tree without branch lengths comes back from it with ones.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vbpi_mix.trees.newick import parse_newick, quoted
from vbpi_mix.trees.topology import Tree

if TYPE_CHECKING:
    import dendropy
    import ete3


def to_ete3(tree: Tree) -> "ete3.TreeNode":
    """The tree as an ete3 tree whose root has three children."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ete3 3.1 imports modules that Python has deprecated
        import ete3
    nodes = [ete3.TreeNode() for _ in range(2 * len(tree.taxa) - 2)]
    for node, name in zip(nodes, tree.taxa, strict=False):
        node.name = name
    if tree.branch_lengths is not None:
        for edge, length in enumerate(tree.branch_lengths.tolist()):
            nodes[edge].dist = length
    for parent, child in _links(tree):
        nodes[parent].add_child(nodes[child])
    return nodes[-1]


def from_ete3(tree: "ete3.TreeNode", taxa: Sequence[str] | None = None) -> Tree:
    """The tree of an ete3 tree; ``taxa`` gives the order of taxa, without it they are sorted.

    Raises:
        TreeFormatError: if the tree is not binary or its taxa are not those given.
    """
    return _from_nodes(
        tree.traverse("postorder"),
        {node: (node.children, node.name, None if node is tree else node.dist) for node in tree.traverse()},
        taxa,
        "ete3 tree",
    )


def to_dendropy(
    tree: Tree, taxon_namespace: "dendropy.TaxonNamespace | None" = None
) -> "dendropy.datamodel.treemodel.Tree":
    """The tree as an unrooted DendroPy tree whose seed node has three children.

    Args:
        tree: the tree.
        taxon_namespace: namespace to use and extend, in which trees to be compared must agree; a new one by
        default.
    """
    import dendropy

    namespace = dendropy.TaxonNamespace() if taxon_namespace is None else taxon_namespace
    nodes = [dendropy.Node() for _ in range(2 * len(tree.taxa) - 2)]
    for node, name in zip(nodes, tree.taxa, strict=False):
        node.taxon = namespace.get_taxon(name) or namespace.new_taxon(name)
    if tree.branch_lengths is not None:
        for edge, length in enumerate(tree.branch_lengths.tolist()):
            nodes[edge].edge.length = length
    for parent, child in _links(tree):
        nodes[parent].add_child(nodes[child])
    result = dendropy.Tree(taxon_namespace=namespace, seed_node=nodes[-1])
    result.is_rooted = False
    return result


def from_dendropy(tree: "dendropy.datamodel.treemodel.Tree", taxa: Sequence[str] | None = None) -> Tree:
    """The tree of a DendroPy tree; ``taxa`` gives the order of taxa, without it they are sorted.

    Raises:
        TreeFormatError: if the tree is not binary, its taxa are not those given, or only some branches have a
        length.
    """
    parts = {}
    for node in tree.postorder_node_iter():
        name = node.taxon.label if node.taxon is not None else ""
        parts[node] = (node.child_nodes(), name, None if node is tree.seed_node else node.edge.length)
    return _from_nodes(tree.postorder_node_iter(), parts, taxa, "DendroPy tree")


def _links(tree: Tree) -> list[tuple[int, int]]:
    """Parent and child of every branch, with the last leaf as third child of the top node."""
    num_taxa = len(tree.taxa)
    links = [(num_taxa + row, child) for row, pair in enumerate(tree.children.tolist()) for child in pair]
    return [*links, (2 * num_taxa - 3, num_taxa - 1)]


def _from_nodes(
    postorder: Iterable[Any],
    parts: Mapping[Any, tuple[Any, Any, Any]],
    taxa: Sequence[str] | None,
    source: str,
) -> Tree:
    """Tree of nodes given as children, name and branch length, made by way of Newick, whose reader checks."""
    texts: dict[Any, str] = {}
    text = ""
    for node in postorder:
        children, name, length = parts[node]
        if children:
            text = "(" + ",".join(texts.pop(child) for child in children) + ")"
        else:
            text = quoted(name)
        texts[node] = text if length is None else f"{text}:{float(length)!r}"
    return parse_newick(text + ";", taxa, source)
