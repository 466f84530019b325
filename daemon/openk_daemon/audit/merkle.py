"""Merkle trees as RFC 6962 section 2.1 defines them: hashes, roots, proofs. Pure functions.

    leaf hash = SHA-256(00 │ entry)        node hash = SHA-256(01 │ left │ right)

A tree of n leaves splits at the largest power of two below n. `Subtree` functions give the hash of the
leaves [begin, end); proofs ask them only for ranges that are themselves trees of that splitting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

HASH: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()

Subtree = Callable[[int, int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root over 2^k hashes (k from 0)."""
    row = list(hashes)
    while len(row) > 1:
        row = [sha256(b"\x01" + row[at] + row[at + 1]).digest() for at in range(0, len(row), 2)]
    return row[0]


def split(size: int) -> int:
    """The largest power of two below `size` (from 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def root_of(leaves: Sequence[bytes]) -> bytes:
    """MTH over leaf hashes, straight from the definition."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    middle = split(len(leaves))
    return node_hash(root_of(leaves[:middle]), root_of(leaves[middle:]))


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees that lie side by side, the largest first."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


class Frontier:
    """The compact range of a growing tree: one hash for each bit of its size, nothing more."""

    def __init__(self) -> None:
        self.size = 0
        self._perfect: list[bytes] = []  # the largest first

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash."""
        size, hash_ = self.size, leaf
        while size & 1:
            hash_ = node_hash(self._perfect.pop(), hash_)
            size >>= 1
        self._perfect.append(hash_)
        self.size += 1

    def root(self) -> bytes:
        return fold(self._perfect)


def inclusion_path(index: int, size: int, subtree: Subtree) -> tuple[bytes, ...]:
    """PATH(m, D[n]) of RFC 6962 section 2.1.1, the deepest hash first. Needs 0 <= index < size."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + split(end - begin)
        if index < middle:
            path.append(subtree(middle, end))
            end = middle
        else:
            path.append(subtree(begin, middle))
            begin = middle
    return tuple(reversed(path))


def consistency_path(old: int, size: int, subtree: Subtree) -> tuple[bytes, ...]:
    """PROOF(m, D[n]) of RFC 6962 section 2.1.2. Needs 0 <= old <= size; empty where nothing is to prove."""
    if not 0 <= old <= size:
        raise ValueError(f"a tree of {size} has no beginning of {old}")
    if old in {0, size}:
        return ()
    path: list[bytes] = []
    begin, end = 0, size
    known = True  # the verifier has the old tree's root itself
    while old != end:
        middle = begin + split(end - begin)
        if old <= middle:
            path.append(subtree(middle, end))
            end = middle
        else:
            path.append(subtree(begin, middle))
            begin = middle
            known = False
    if not known:
        path.append(subtree(begin, end))
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """RFC 9162 section 2.1.3.2: whether `path` proves that `leaf` is number `index` of the tree `root`."""
    if not 0 <= index < size:
        return False
    at, last = index, size - 1
    hash_ = leaf
    for step in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            hash_ = node_hash(step, hash_)
            while at and not at & 1:
                at >>= 1
                last >>= 1
        else:
            hash_ = node_hash(hash_, step)
        at >>= 1
        last >>= 1
    return last == 0 and hash_ == root


def verify_consistency(old: int, size: int, old_root: bytes, root: bytes, path: Sequence[bytes]) -> bool:
    """RFC 9162 section 2.1.4.2: whether `path` proves that the tree `root` begins with the tree `old_root`."""
    if not 0 <= old <= size:
        return False
    if old == size:
        return not path and old_root == root
    if old == 0:
        return not path and old_root == EMPTY_ROOT
    steps = list(path)
    if old & (old - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        return False
    at, last = old - 1, size - 1
    while at & 1:
        at >>= 1
        last >>= 1
    first = second = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first = node_hash(step, first)
            second = node_hash(step, second)
            while at and not at & 1:
                at >>= 1
                last >>= 1
        else:
            second = node_hash(second, step)
        at >>= 1
        last >>= 1
    return last == 0 and first == old_root and second == root
