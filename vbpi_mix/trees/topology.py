"""Unrooted binary topologies as integer arrays: the data model of the package.

A topology of n >= 3 taxa has n leaves, n - 2 internal nodes and 2n - 3 branches. It is stored as if it hung from its
last leaf:

- Nodes 0 .. n-1 are the leaves, numbered as the taxa. Nodes n .. 2n-3 are internal.
- ``children[i]`` holds the two children of internal node n + i. Children come before parents:
  ``children[i, j] < n + i``. The top node is the last one, 2n - 3; its third neighbour, above it, is leaf n - 1. So
  leaf n - 1 is nobody's child, and every other node but the top is the child of exactly one node.
- Branch e joins node e to its parent, for every node e but two: branch n - 1 joins leaf n - 1 to the top node,
  and there is no branch 2n - 3. So branches, like non-top nodes, are numbered 0 .. 2n-4, and branch e < n is the
  pendant branch of taxon e.

``children`` has shape [internal, 2], or [tree, internal, 2] for a batch, and dtype int32. Branch lengths have
shape [edge] or [tree, edge], dtype float64, in expected substitutions per site.

The *canonical* form orders the two children of a node by the smallest leaf below them, the smaller first, and
numbers internal nodes in post-order (first child's subtree, second child's subtree, node). Two topologies are
equal if and only if their canonical arrays are.
"""
