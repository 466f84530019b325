"""RFC 6962 trees: published roots, proofs that verify and proofs that must not."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.audit.edge import Edge, tile_widths
from openk_daemon.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    Subtree,
    consistency_path,
    inclusion_path,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

# The reference tree of the Certificate Transparency implementations.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(b"%d" % number) for number in range(count)]


def subtree_of(hashes: list[bytes]) -> Subtree:
    return lambda begin, end: root_of(hashes[begin:end])


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_published_ones(size: int) -> None:
    hashes = [leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES[:size]]
    frontier, edge = Frontier(), Edge()
    for hash_ in hashes:
        frontier.append(hash_)
        edge.append(hash_)
    assert root_of(hashes).hex() == frontier.root().hex() == edge.root().hex() == ROOTS[size]


@given(st.integers(0, 700))
def test_three_ways_to_a_root_agree(size: int) -> None:
    hashes = leaves(size)
    frontier, edge = Frontier(), Edge()
    for hash_ in hashes:
        frontier.append(hash_)
        edge.append(hash_)
    assert frontier.root() == edge.root() == root_of(hashes)
    assert frontier.size == edge.size == size
    assert [len(row) for row in edge.rows if row] == [width for _, width in tile_widths(size) if width]
    assert Edge([list(row) for row in edge.rows]).size == size


@given(st.data())
def test_an_inclusion_proof_proves_its_leaf_in_its_place_and_nothing_else(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    hashes = leaves(size)
    root = root_of(hashes)
    path = inclusion_path(index, size, subtree_of(hashes))
    assert verify_inclusion(hashes[index], index, size, path, root)
    assert not verify_inclusion(leaf_hash(b"another"), index, size, path, root)
    assert not verify_inclusion(hashes[index], index, size, path, leaf_hash(b"another"))
    assert not verify_inclusion(hashes[index], index, size, (*path, root), root)
    wrong = data.draw(st.integers(-1, size + 1).filter(lambda other: other != index))
    assert not verify_inclusion(hashes[index], wrong, size, path, root)
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        assert not verify_inclusion(hashes[index], index, size, path[:at] + path[at + 1 :], root)
        flipped = bytes((path[at][0] ^ 1,)) + path[at][1:]
        assert not verify_inclusion(hashes[index], index, size, (*path[:at], flipped, *path[at + 1 :]), root)


@given(st.data())
def test_a_consistency_proof_proves_growth_and_nothing_else(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    old = data.draw(st.integers(1, size))
    hashes = leaves(size)
    root, old_root = root_of(hashes), root_of(hashes[:old])
    path = consistency_path(old, size, subtree_of(hashes))
    assert verify_consistency(old, size, old_root, root, path)
    rewritten = root_of([leaf_hash(b"rewritten"), *hashes[1:old]])
    assert not verify_consistency(old, size, rewritten, root, path)
    assert not verify_consistency(old, size, old_root, rewritten, path)
    assert not verify_consistency(old, size, old_root, root, (*path, root))
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        assert not verify_consistency(old, size, old_root, root, path[:at] + path[at + 1 :])
        flipped = bytes((path[at][0] ^ 1,)) + path[at][1:]
        assert not verify_consistency(old, size, old_root, root, (*path[:at], flipped, *path[at + 1 :]))


def test_a_tree_is_consistent_with_nothing_and_with_itself_only() -> None:
    root = root_of(leaves(5))
    assert consistency_path(0, 5, subtree_of(leaves(5))) == ()
    assert verify_consistency(0, 5, EMPTY_ROOT, root, ())
    assert not verify_consistency(0, 5, root, root, ())
    assert verify_consistency(5, 5, root, root, ())
    assert not verify_consistency(6, 5, root, root, ())
    assert not verify_consistency(4, 5, root, root, ())


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5)])
def test_there_is_no_path_to_what_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        inclusion_path(index, size, subtree_of([]))


def test_leaves_and_nodes_cannot_be_taken_for_each_other() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != root_of([left, right])
    assert leaf_hash(b"") == sha256(b"\x00").digest()
