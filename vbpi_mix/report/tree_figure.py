"""A tree as a picture: branches to scale, supports at the nodes, a scale bar.

The trees are unrooted. The picture hangs them from the middle of their longest path (midpoint rooting), with
smaller clades first, so that similar trees look alike.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from vbpi_mix.report.charts import ticks
from vbpi_mix.report.svg import add, markup, number, picture
from vbpi_mix.report.words import significant
from vbpi_mix.trees.summaries import ConsensusTree

TREE_WIDTH = 520.0
MAX_NAME = 44
"""Characters of a name; longer ones are cut, and whole in a tooltip."""
CERTAIN = 0.995
"""Probability from which a branch gets a dot instead of a number."""


@dataclass(frozen=True)
class DrawnTree:
    """A tree as it hangs in the picture, from a root in the middle of a branch.

    Attributes:
        parents: Node above every node, -1 for the root, which is last.
        lengths: Length of the branch above every node; zero for the root.
        branches: Node of the original tree whose branch is above a node: its values are those there. -1 for
            the root.
        order: Nodes, children before parents, as `positions` goes through them.
    """

    parents: list[int]
    lengths: list[float]
    branches: list[int]
    order: list[int]

    @property
    def children(self) -> list[list[int]]:
        """Nodes below every node, in the order of the picture."""
        below: list[list[int]] = [[] for _ in self.parents]
        for node in self.order:
            if self.parents[node] >= 0:
                below[self.parents[node]].append(node)
        return below


def hang(tree: ConsensusTree) -> DrawnTree:
    """A tree hung from its midpoint.

    Args:
        tree: Tree with branch lengths.
    """
    assert tree.lengths is not None  # all trees of a run have them
    num_nodes = len(tree.parents)
    neighbours: list[list[tuple[int, float, int]]] = [[] for _ in range(num_nodes + 1)]
    # A branch that no draw has, as may be in a tree that is none of them, has no length.
    lengths = np.nan_to_num(tree.lengths.mean).tolist()
    for node, (parent, length) in enumerate(zip(tree.parents.tolist(), lengths, strict=True)):
        if parent >= 0:
            neighbours[node].append((parent, length, node))
            neighbours[parent].append((node, length, node))
    one = _farthest(neighbours, 0)[0]
    other, distance, above = _farthest(neighbours, one)
    # Walk from one end of the longest path until half of it is behind.
    node, left = other, 0.5 * distance[other]
    while above[node][0] >= 0 and left > above[node][1]:
        left -= above[node][1]
        node = above[node][0]
    parent, length, branch = above[node]
    root = num_nodes
    neighbours[node] = [link for link in neighbours[node] if link[2] != branch] + [(root, left, branch)]
    neighbours[parent] = [link for link in neighbours[parent] if link[2] != branch] + [
        (root, length - left, branch)
    ]
    neighbours[root] = [(node, left, branch), (parent, length - left, branch)]
    return _ordered(neighbours, root, len(tree.taxa))


def _farthest(
    neighbours: list[list[tuple[int, float, int]]], start: int
) -> tuple[int, dict[int, float], dict[int, tuple[int, float, int]]]:
    """The other node farthest from one, all distances, and what leads back: node, length, branch."""
    distance, above = {start: 0.0}, {start: (-1, 0.0, -1)}
    waiting = [start]
    for node in waiting:
        for other, length, branch in neighbours[node]:
            if other not in distance:
                distance[other] = distance[node] + length
                above[other] = (node, length, branch)
                waiting.append(other)
    return max(waiting[1:], key=lambda node: distance[node]), distance, above


def _ordered(neighbours: list[list[tuple[int, float, int]]], root: int, num_taxa: int) -> DrawnTree:
    """The tree below a root, smaller clades first."""
    _, _, above = _farthest(neighbours, root)
    found = list(above)  # parents before children
    size = {node: int(node < num_taxa) for node in found}
    first = {node: node if node < num_taxa else num_taxa for node in found}
    below: dict[int, list[int]] = {node: [] for node in found}
    for node in reversed(found):
        parent = above[node][0]
        if parent >= 0:
            size[parent] += size[node]
            first[parent] = min(first[parent], first[node])
            below[parent].append(node)
    order, stack = [], [root]
    while stack:  # post-order, backwards
        node = stack.pop()
        order.append(node)
        stack += sorted(below[node], key=lambda child: (size[child], first[child]))
    links = [above.get(node, (-1, 0.0, -1)) for node in range(root + 1)]
    return DrawnTree(
        [link[0] for link in links], [link[1] for link in links], [link[2] for link in links], order[::-1]
    )


def tree_picture(tree: ConsensusTree, label: str, link: Callable[[int], str | None]) -> str:
    """A tree as SVG text.

    Args:
        tree: Tree with branch lengths.
        label: What it shows, for those who do not see it.
        link: Anchor in the page of what is said of the branch above an inner node; None where nothing is.
    """
    assert tree.lengths is not None
    drawn, num_taxa = hang(tree), len(tree.taxa)
    row = 19.0 if num_taxa <= 40 else 15.0 if num_taxa <= 120 else 11.0
    font = 12.5 if num_taxa <= 40 else 11.0 if num_taxa <= 120 else 9.0
    names = [name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…" for name in tree.taxa]
    name_width = max(_text_width(name) for name in names) * font
    x, y = _positions(drawn, num_taxa)
    deepest = max(x) or 1.0
    scale = TREE_WIDTH / deepest
    left, top = 26.0, 14.0
    bar_y = top + row * num_taxa + 14
    drawing = picture(left + TREE_WIDTH + name_width + 14, bar_y + 26, label, "tree")

    def across(node: int) -> float:
        return left + x[node] * scale

    def down(node: int) -> float:
        return top + (y[node] + 0.5) * row

    branches = add(drawing, "g", class_="branches")
    for node in drawn.order:
        parent = drawn.parents[node]
        if parent >= 0:
            end = max(across(node), across(parent) + 0.5)
            line = f"M{number(across(parent))} {number(down(node))}H{number(end)}"
            path = add(
                branches, "path", d=line, class_="branch" if _is_strong(tree, drawn, node) else "branch weak"
            )
            add(path, "title", _tooltip(tree, drawn.branches[node]))
    for node, below in enumerate(drawn.children):
        if below:
            ends = [down(child) for child in below]
            add(branches, "path", class_="branch",
                d=f"M{number(across(node))} {number(min(ends))}V{number(max(ends))}")  # fmt: skip
    for leaf, name in enumerate(names):
        text = add(drawing, "text", name, x=across(leaf) + 6, y=down(leaf) + 0.35 * font, class_="taxon",
                   font_size=font)  # fmt: skip
        if name != tree.taxa[leaf]:
            add(text, "title", tree.taxa[leaf])
    _supports(drawing, tree, drawn, link, across, down, min(font, 10.5))
    _scale_bar(drawing, deepest, scale, left, bar_y)
    return markup(drawing)


def _positions(drawn: DrawnTree, num_taxa: int) -> tuple[list[float], list[float]]:
    """Distance of every node from the root, and its row."""
    num_nodes = len(drawn.parents)
    x, y = [0.0] * num_nodes, [0.0] * num_nodes
    for node in reversed(drawn.order):
        if drawn.parents[node] >= 0:
            x[node] = x[drawn.parents[node]] + max(0.0, drawn.lengths[node])
    children, rows = drawn.children, 0
    for node in drawn.order:
        if node < num_taxa:
            y[node], rows = float(rows), rows + 1
        else:
            y[node] = 0.5 * (y[children[node][0]] + y[children[node][-1]])
    return x, y


def _is_strong(tree: ConsensusTree, drawn: DrawnTree, node: int) -> bool:
    """Whether the branch above a node is in nearly all trees."""
    return bool(tree.probabilities[drawn.branches[node]] >= 0.95)


def _supports(
    drawing: Element,
    tree: ConsensusTree,
    drawn: DrawnTree,
    link: Callable[[int], str | None],
    across: Callable[[int], float],
    down: Callable[[int], float],
    font: float,
) -> None:
    """Supports of inner branches, at the node below each: a dot where certain, else per cent."""
    group, num_taxa, root = add(drawing, "g", class_="supports"), len(tree.taxa), len(drawn.parents) - 1
    seen: set[int] = set()
    for node in reversed(drawn.order):
        branch = drawn.branches[node]
        # The branch that the root cuts in two is shown once, and not at a leaf's end of it.
        if node < num_taxa or node == root or branch < num_taxa or branch in seen:
            continue
        seen.add(branch)
        target, probability = link(branch), float(tree.probabilities[branch])
        place = add(group, "a", href=target, tabindex=-1) if target else group
        if probability >= CERTAIN:
            mark = add(place, "circle", class_="certain", cx=across(node), cy=down(node), r=2.6)
        else:
            mark = add(place, "text", f"{100 * probability:.0f}", x=across(node) - 3, y=down(node) - 3,
                       class_="support", text_anchor="end", font_size=font)  # fmt: skip
        add(mark, "title", _tooltip(tree, branch))


def _tooltip(tree: ConsensusTree, branch: int) -> str:
    """What there is to know of a branch."""
    assert tree.lengths is not None
    low, high = tree.lengths.interval[branch].tolist()
    mean = significant(float(tree.lengths.mean[branch]))
    length = f"length {mean}, 95% HPD {significant(low)} to {significant(high)}"
    if branch < len(tree.taxa):
        return f"{tree.taxa[branch]}: {length}"
    return f"probability {tree.probabilities[branch]:.3f}, {length}"


def _scale_bar(drawing: Element, deepest: float, scale: float, left: float, y: float) -> None:
    """A bar of a round length, about a fifth of the tree."""
    length = ticks(0.0, deepest, 8)[1]
    add(
        drawing,
        "path",
        class_="bar",
        d=f"M{number(left)} {number(y - 3)}v6m0-3h{number(length * scale)}m0-3v6",
    )
    text = f"{length:g} substitutions per site"
    add(drawing, "text", text, x=left, y=y + 17, class_="tick")


def _text_width(text: str) -> float:
    """Width of a text in ems, about, and rather too much."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return 0.6 * len(text) + 0.45 * wide
