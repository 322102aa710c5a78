import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vbpi_mix.errors import TreeFormatError
from vbpi_mix.trees import newick
from vbpi_mix.trees.newick import (
    LabelTable,
    TreeText,
    newick_texts,
    parse_batch,
    parse_newick,
    quoted,
    unquoted,
    write_newick,
)
from vbpi_mix.trees.topology import Tree, canonicalise, clade_masks, random_topologies, validate

ABCDE = ("a", "b", "c", "d", "e")
names = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("'()[]:;, _\"{}&=*/\\"),
    min_size=1,
    max_size=12,
).filter(lambda name: name.strip() == name)


def with_lengths(num_taxa, seed):
    rng = np.random.default_rng(seed)
    taxa = tuple(f"t{i:04d}" for i in range(num_taxa))
    return Tree(taxa, random_topologies(num_taxa, 1, rng)[0], rng.exponential(0.1, 2 * num_taxa - 3))


def same(first, second):
    return (
        first.taxa == second.taxa
        and np.array_equal(first.children, second.children)
        and (
            second.branch_lengths is None
            if first.branch_lengths is None
            else np.array_equal(first.branch_lengths, second.branch_lengths)
        )
    )


def test_hand_worked_tree():
    # Rooted on the branch above {a, b}; the root's two branches 0.5 and 0.25 make one of 0.75.
    tree = parse_newick(" ( (a:1, b:2)95:0.5, (c:3 , (d:4,e:5e0):.6):25E-2 )root:9;\n")
    assert tree.taxa == ABCDE
    assert tree.children.tolist() == [[0, 1], [5, 2], [6, 3]]
    # Branches a, b, c, d, e, {a, b}, {a, b, c} = complement of {d, e}.
    assert tree.branch_lengths.tolist() == [1, 2, 3, 4, 5, 0.75, 0.6]


@pytest.mark.parametrize(
    "text",
    [
        "((a,b),c,(d,e));",
        "[&U]((a,b),c,(d,e));",
        "[&R] (((a,b),c),(d,e));",
        "(a,(b,(c,(d,e))));",
        "(e,(d,((b,a)0.99[&x={1,2}],c)'a support'))\t;",
        "(('a','b'),\r\n 'c',[ (,;:' ]('d',e))",
        "(((a,b),c[nested [comment]]),(d,e))",
    ],
)
def test_forms_of_one_topology(text):
    tree = parse_newick(text)
    assert tree.children.tolist() == [[0, 1], [5, 2], [6, 3]]
    assert tree.branch_lengths is None


def test_taxa_give_the_order_and_underscores_may_stand_for_spaces():
    tree = parse_newick("(Homo_sapiens,'Mus musculus',Pan 1);", ("Pan_1", "Mus_musculus", "Homo sapiens"))
    assert tree.taxa == ("Pan_1", "Mus_musculus", "Homo sapiens")
    both = parse_newick("('x y',x_y,z);", ("x_y", "z", "x y"))
    assert both.taxa == ("x_y", "z", "x y")
    with pytest.raises(TreeFormatError, match="unknown taxon 'x_y z'"):
        parse_newick("(x_y z,a,b);", ("x_y_z", "x y z", "a"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a;", r"line 1, column 1 \(tree 1, at 'a'\): expected '\(' and a tree"),
        ("((a,b),c,(d,e);", r"column 1 .*expected a '\)' for this '\('"),
        ("((a,b),c),(d,e));", "expected ';' after the tree, got further text"),
        ("((a,b),c,(d,e)));", r"column 16 .*a '\)' that closes nothing"),
        ("((a,b),c,(d,x));", "unknown taxon 'x'; known are a, b, c, d, e"),
        ("((a,b),c,(d,a));", "taxon 'a' occurs twice"),
        ("((a,b),c);", "missing: d, e"),
        ("((a,b,c),d,e);", r"column 2 .*too many children .*resolve the polytomy"),
        ("(a,b,c,(d,e));", "too many children"),
        ("((a,b),(c),(d,e));", r"column 8 .*this node has one"),
        ("((a,b),c,(d,e)):x;", "expected a branch length"),
        ("((a:1,b:),c,(d,e));", "expected a branch length"),
        ("((a:1,b:nan),c,(d,e));", "expected a branch length"),
        ("((a:1,b:1e999),c,(d,e));", "expected a branch length"),
        ("((a:1,b:1e),c,(d,e));", "expected a branch length"),
        ("((a:1,b:1.2.3),c,(d,e));", "expected a branch length"),
        ("((a:1:2,b),c,(d,e));", r"expected ',' or '\)' here"),
        ("((a,b),c,(d,e))x y 'z';", "got further text"),
        ("((a'x',b),c,(d,e));", r"expected ',' or '\)' here"),
        ("((a,b),c,(d,e))];", "expected ',' or"),
        ("((a,b),c,[(d,e));", r"column 10: expected a '\]'"),
        ("((a,b),c,('d,e));", "column 11: expected a closing quote"),
        ("((a,),c,(d,e));", "expected a taxon name"),
        ("((a,b),\nc,,(d,e));", "line 2, column 3 .*expected a taxon name"),
        ("(((((((((((a,b))))))))));", "more nested brackets than taxa"),
        ("((a:1,b),c,(d,e));", "6 of 7 branches have none"),
        ("(a,b,c);(a,b,c);", "expected one tree, got 2"),
        ("", "expected one tree, got 0"),
        ("();", "expected a taxon name"),
    ],
)
def test_errors_name_place_and_cause(text, message):
    with pytest.raises(TreeFormatError, match=message):
        parse_newick(text, ABCDE)


def test_errors_of_the_taxa():
    with pytest.raises(TreeFormatError, match="got twice: a"):
        LabelTable.from_labels(("a", "b", "a"))
    with pytest.raises(TreeFormatError, match="at least 3 taxa, got 2: a, b"):
        parse_newick("(a,b);")


def test_error_names_the_tree_of_a_batch():
    text = TreeText.from_newick(b"(a,b,c);\n(a,b,c);\n(a,b,x);", "trees.nwk")
    with pytest.raises(TreeFormatError, match=r"trees.nwk, line 3, column 6 \(tree 3, at 'x\)'\)"):
        parse_batch(text, LabelTable.from_labels(("a", "b", "c")))


@given(st.lists(names, min_size=3, max_size=8, unique=True), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=200, deadline=None)
def test_round_trip_of_names_and_lengths(taxa, seed, has_lengths):
    tree = with_lengths(len(taxa), seed)
    tree = Tree(tuple(taxa), tree.children, tree.branch_lengths if has_lengths else None)
    text = write_newick(tree)
    assert same(parse_newick(text, taxa), tree)
    assert write_newick(parse_newick(text, taxa)) == text
    assert set(parse_newick(text).taxa) == set(taxa)


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
@settings(max_examples=1000, deadline=None)
def test_lengths_read_back_unchanged(length):
    if length != 0 and not 1e-260 < length < 1e290:
        length = 0.1
    assert parse_newick(f"(a:{length!r},b:{-length!r},c:{length:.16e});").branch_lengths.tolist() == [
        length,
        -length,
        length,
    ]


@pytest.mark.parametrize(
    "number",
    ["0", "00.10", "1.", ".5", "+3", "1E-5", "123456789012345678901234567890",
     "0.0000000000000000123456789012345", "9007199254740993", "1e-320", "2.2250738585072014e-308", "1e-400",
     "1.7976931348623157e300", "1e23"],
)  # fmt: skip
def test_decimals_as_python_reads_them(number):
    value = parse_newick(f"(a:{number},b:1,c:1);").branch_lengths[0]
    # Outside 1e-261 .. 1e299 the power of ten is applied in two steps, each of which rounds.
    assert value == pytest.approx(float(number), rel=1e-15, abs=1e-322)
    if 1e-250 < float(number) < 1e250:
        assert value == float(number)


def test_random_texts_of_one_tree_agree():
    """Any rooting, order of children and quoting of a tree reads as the same tree."""
    shuffle = random.Random(0)
    for seed in range(30):
        tree = with_lengths(9, seed)
        neighbours = {v: [] for v in range(16)}
        for i, pair in enumerate(tree.children.tolist()):
            for child in pair:
                neighbours[9 + i].append((child, float(tree.branch_lengths[child])))
                neighbours[child].append((9 + i, float(tree.branch_lengths[child])))
        neighbours[15].append((8, float(tree.branch_lengths[8])))
        neighbours[8].append((15, float(tree.branch_lengths[8])))

        def text(node, above, neighbours=neighbours, tree=tree):
            below = [(v, length) for v, length in neighbours[node] if v != above]
            shuffle.shuffle(below)
            if not below:
                return f"'{tree.taxa[node]}'" if shuffle.random() < 0.5 else tree.taxa[node]
            return "(" + ",".join(f"{text(v, node)}:{length!r}" for v, length in below) + ")"

        unrooted = text(shuffle.randrange(9, 16), None) + ";"
        assert same(parse_newick(unrooted), tree)
        node = shuffle.randrange(16)
        other, length = shuffle.choice(neighbours[node])
        rooted = f"({text(node, other)}:{length / 4!r},{text(other, node)}:{length - length / 4!r});"
        again = parse_newick(rooted)
        np.testing.assert_array_equal(again.children, tree.children)
        np.testing.assert_allclose(again.branch_lengths, tree.branch_lengths, rtol=1e-15)


def test_deep_caterpillars():
    taxa = [f"t{i:04d}" for i in range(1000)]
    text = "(" * 999 + taxa[0] + "".join(f",{name})" for name in taxa[1:]) + ";"
    tree = parse_newick(text)
    validate(tree.children[None])
    assert [int(v) for v in clade_masks(tree.children[None])[0, 1000:1004, 0]] == [
        0b11,
        0b111,
        0b1111,
        0b11111,
    ]
    assert same(parse_newick(write_newick(tree)), tree)
    reverse = "".join(f"({name}," for name in reversed(taxa[1:])) + taxa[0] + ")" * 999 + ";"
    assert same(parse_newick(reverse), tree)


def test_writing_is_the_same_for_every_numbering():
    children = np.array([[2, 1], [0, 3], [5, 6]], np.int32)
    tree = Tree(ABCDE, children, np.arange(7.0))
    assert write_newick(tree) == "((a:0.0,d:3.0):6.0,(b:1.0,c:2.0):5.0,e:4.0);"
    assert write_newick(Tree(ABCDE, canonicalise(children[None])[0])) == "((a,d),(b,c),e);"


def newick_by_definition(children, suffixes, labels):
    """Newick text by recursion, children by smallest leaf; ``suffixes`` [node] follow the nodes."""

    def described(node):
        if node < len(labels):
            return node, labels[node] + suffixes[node]
        (smallest, first), (_, second) = sorted(described(int(v)) for v in children[node - len(labels)])
        return smallest, f"({first},{second}){suffixes[node]}"

    *_, (first, second) = children
    subtrees = [text for _, text in sorted([described(int(first)), described(int(second))])]
    return f"({subtrees[0]},{subtrees[1]},{labels[-1]}{suffixes[len(labels) - 1]});"


@pytest.mark.parametrize("digits", [None, 9, 3])
@pytest.mark.parametrize("num_taxa", [3, 4, 9, 70])
def test_texts_by_definition_across_blocks(num_taxa, digits, monkeypatch):
    monkeypatch.setattr(newick, "_BLOCK", 7)
    rng = np.random.default_rng(num_taxa)
    labels = [("é", "'a (b)'", "", "t")[i % 4] + str(i) for i in range(num_taxa)]
    children = random_topologies(num_taxa, 21 + num_taxa % 2, rng)
    children[::2] = children[::2, :, ::-1]  # not canonical: the two children of every node swapped
    lengths = rng.exponential(0.1, (len(children), 2 * num_taxa - 3))
    lengths[0, :3] = 0.0, 1e-300, 12.0
    bare = [newick_by_definition(tree, [""] * (2 * num_taxa - 3), labels) for tree in children]
    assert list(newick_texts(children, None, labels, digits)) == bare
    written = repr if digits is None else f"{{:.{digits}g}}".format
    expected = [
        newick_by_definition(tree, [f":{written(length)}" for length in values], labels)
        for tree, values in zip(children, lengths.tolist(), strict=True)
    ]
    assert list(newick_texts(children, lengths, labels, digits)) == expected


def test_numbers_of_labels_and_lengths_are_checked():
    children = random_topologies(5, 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="expected 5 labels, got 4"):
        next(newick_texts(children, None, ABCDE[:4]))
    with pytest.raises(ValueError, match=r"expected branch lengths \(2, 7\), got \(2, 6\)"):
        next(newick_texts(children, np.ones((2, 6)), ABCDE))


def test_no_trees_no_texts():
    assert list(newick_texts(random_topologies(5, 0, np.random.default_rng(0)), None, ABCDE)) == []


def test_quotes():
    assert quoted("Homo_sapiens-1.2|x") == "Homo_sapiens-1.2|x"
    assert quoted("it's (a) [b]: c;d,e") == "'it''s (a) [b]: c;d,e'"
    assert unquoted(quoted("it's")) == "it's"


def dendropy_splits(text):
    import dendropy

    tree = dendropy.Tree.get(
        data=text,
        schema="newick",
        preserve_underscores=True,
        rooting="force-unrooted",
        suppress_internal_node_taxa=True,
    )
    tree.encode_bipartitions()
    everything = frozenset(taxon.label for taxon in tree.taxon_namespace)
    result = {}
    for edge in tree.preorder_edge_iter():
        if edge.bipartition is not None and edge.length is not None:
            side = frozenset(t.label for t in edge.bipartition.leafset_taxa(tree.taxon_namespace))
            key = frozenset([side, everything - side])
            result[key] = result.get(key, 0.0) + edge.length
    return result


def ete3_splits(text):
    from ete3 import Tree as EteTree

    tree = EteTree(text, quoted_node_names=True, format=1)
    everything = frozenset(tree.get_leaf_names())
    return {
        frozenset([side := frozenset(node.get_leaf_names()), everything - side]): node.dist
        for node in tree.traverse()
        if not node.is_root()
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ete3 imports cgi
@pytest.mark.parametrize("seed", range(3))
def test_splits_and_lengths_as_dendropy_and_ete3_read_them(seed):
    tree = with_lengths(70, seed)
    everything = frozenset(tree.taxa)
    ours = {}
    for edge, words in enumerate(clade_masks(tree.children[None])[0]):
        side = frozenset(name for i, name in enumerate(tree.taxa) if int(words[i // 64]) >> (i % 64) & 1)
        ours[frozenset([side, everything - side])] = tree.branch_lengths[edge]
    text = write_newick(tree)
    for theirs in (dendropy_splits(text), ete3_splits(text)):
        assert theirs.keys() == ours.keys()
        for split, length in theirs.items():
            assert length == pytest.approx(ours[split], rel=1e-9)


def test_dendropy_recovers_odd_names():
    import dendropy

    odd = ("it's", "a (b)", "x:y", "p,q;r", "[z]", "naïve é")
    tree = Tree(odd, random_topologies(6, 1, np.random.default_rng(0))[0])
    found = dendropy.Tree.get(data=write_newick(tree), schema="newick", preserve_underscores=True)
    assert sorted(taxon.label for taxon in found.taxon_namespace) == sorted(odd)
    assert re.search(r"'it''s'", write_newick(tree))


def test_damaged_texts_are_refused_or_read_as_a_valid_tree():
    """Random edits of good texts, which must not get past the parser as something else than a tree."""
    chance = random.Random(1)
    texts = [
        "((a:1,'b c':2.5e-1)x:3,(c_d:4 [hi],(e:1,f:1):2):1);",
        "(((a,b),c),(d,e));",
        "(a,b,(c,(d,'e')));",
    ]
    num_read = num_refused = 0
    for _ in range(3000):
        symbols = list(chance.choice(texts))
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(symbols))
            if chance.random() < 0.5:
                del symbols[place]
            else:
                symbols.insert(place, chance.choice("(),:;[]' a1eE.-_é\x00"))
        try:
            tree = parse_newick("".join(symbols))
        except TreeFormatError:
            num_refused += 1
        else:
            validate(tree.children[None])
            again = parse_newick(write_newick(tree), tree.taxa)
            np.testing.assert_array_equal(again.children, tree.children)
            num_read += 1
    assert num_read > 100
    assert num_refused > 1000
