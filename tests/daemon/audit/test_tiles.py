"""The published folder: names, files, proofs out of it."""

from __future__ import annotations

import os
import random
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.audit.edge import WIDTH, Edge
from openk_daemon.audit.merkle import (
    Frontier,
    consistency_path,
    inclusion_path,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from openk_daemon.audit.seam import AuditDamaged
from openk_daemon.audit.tiles import File, Tiles, bundle_file, number_path, split_bundle, tile_file, tile_path


@pytest.mark.parametrize(
    ("number", "path"),
    [
        (0, "000"),
        (67, "067"),
        (999, "999"),
        (1000, "x001/000"),
        (1234067, "x001/x234/067"),
        (10**9, "x001/x000/x000/000"),
    ],
)
def test_numbers_are_written_as_c2sp_says(number: int, path: str) -> None:
    assert number_path(number) == path


def test_tiles_have_the_names_c2sp_gives_them() -> None:
    assert tile_path(0, 1234067, 256) == "tile/0/x001/x234/067"
    assert tile_path(2, 5, 17) == "tile/2/005.p/17"
    assert tile_path("entries", 5, 17) == "tile/entries/005.p/17"


@given(st.lists(st.binary(max_size=400), max_size=40))
def test_bundles_are_split_as_they_were_joined(entries: list[bytes]) -> None:
    assert split_bundle(bundle_file(0, entries).content) == entries


@given(st.binary(max_size=60))
def test_any_bytes_split_or_are_refused(content: bytes) -> None:
    try:
        entries = split_bundle(content)
    except ValueError:
        return
    assert bundle_file(0, entries).content == content


def grow(folder: str, size: int) -> tuple[Tiles, list[bytes], Edge]:
    """A tree of `size` made-up leaf hashes, published once at its end."""
    tiles, edge = Tiles(folder), Edge()
    leaves = [sha256(b"%d" % number).digest() for number in range(size)]
    for leaf in leaves:
        tiles.write(tile_file(tile) for tile in edge.append(leaf))
    tiles.write(tile_file(tile) for tile in edge.partial_tiles())
    return tiles, leaves, edge


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 1000, 66_000])
def test_proofs_come_out_of_the_tiles(tmp_path: Path, size: int) -> None:
    tiles, leaves, edge = grow(str(tmp_path), size)
    root = root_of(leaves)
    assert edge.root() == root
    assert tiles.load_edge(size).root() == root
    chance = random.Random(size)
    for index in {0, size - 1, size // 2, *(chance.randrange(size) for _ in range(5))}:
        path = inclusion_path(index, size, tiles.subtree(size))
        assert verify_inclusion(leaves[index], index, size, path, root)
    for old in {1, size, *(chance.randrange(size) + 1 for _ in range(5))}:
        path = consistency_path(old, size, tiles.subtree(size))
        assert verify_consistency(old, size, root_of(leaves[:old]), root, path)


def test_a_smaller_tree_is_proved_out_of_wider_tiles(tmp_path: Path) -> None:
    tiles, leaves, _ = grow(str(tmp_path), 700)
    for size in (1, 100, 256, 513, 699):
        frontier = Frontier()
        for leaf in leaves[:size]:
            frontier.append(leaf)
        assert tiles.load_edge(size).root() == frontier.root()
        path = inclusion_path(size - 1, size, tiles.subtree(size))
        assert verify_inclusion(leaves[size - 1], size - 1, size, path, frontier.root())


def test_what_is_missing_or_cut_short_is_named(tmp_path: Path) -> None:
    tiles, _, _ = grow(str(tmp_path), 300)
    (tmp_path / "tile/0/001.p/44").write_bytes(bytes(43 * 32))
    with pytest.raises(AuditDamaged, match=r"tile/0/001\.p/44 of the audit log is cut short"):
        tiles.read_tile(0, 1, 44)
    with pytest.raises(AuditDamaged, match=r"tile/0/007 of the audit log is missing"):
        tiles.read_tile(0, 7, WIDTH)
    with pytest.raises(AuditDamaged, match=r"tile/entries/000 of the audit log is missing"):
        tiles.read_bundle(0, WIDTH)
    tiles.write([File("tile/entries/000.p/2", b"\x00\x05abc")])
    with pytest.raises(AuditDamaged, match=r"tile/entries/000\.p/2 is damaged"):
        tiles.read_bundle(0, 2)
    tiles.write([File("tile/entries/000.p/2", b"\x00\x03abc")])
    with pytest.raises(AuditDamaged, match=r"tile/entries/000\.p/2 is cut short"):
        tiles.read_bundle(0, 2)


@pytest.mark.parametrize("name", ["\u00b2\u00b3", "\u0665\u0660", "300", "050", "x"])
def test_strange_names_beside_a_tile_are_not_taken_for_wider_ones(tmp_path: Path, name: str) -> None:
    tiles, _, _ = grow(str(tmp_path), 300)
    (tmp_path / "tile/0/001.p/44").rename(tmp_path / "tile/0/001.p" / name)
    with pytest.raises(AuditDamaged, match=r"tile/0/001\.p/44 of the audit log is missing"):
        tiles.read_tile(0, 1, 44)


def test_a_folder_in_a_tiles_place_is_no_tile(tmp_path: Path) -> None:
    tiles, _, _ = grow(str(tmp_path), 300)
    (tmp_path / "tile/0/001.p/44").unlink()
    (tmp_path / "tile/0/001.p/44").mkdir()
    with pytest.raises(AuditDamaged, match=r"tile/0/001\.p/44 of the audit log is missing"):
        tiles.read_tile(0, 1, 44)


def test_files_are_private_whole_and_replaced(tmp_path: Path) -> None:
    tiles = Tiles(str(tmp_path / "audit"))
    assert tiles.read_checkpoint() is None
    tiles.write([File("checkpoint", b"one"), File("tile/0/000.p/1", bytes(32))])
    tiles.write([File("checkpoint", b"two")])
    assert tiles.read_checkpoint() == "two"
    names = {os.path.join(at, name) for at, _, names in os.walk(tmp_path) for name in names}
    assert len(names) == 2, "no temporary file is left"
    for name in names:
        assert os.stat(name).st_mode & 0o077 == 0
        assert os.stat(os.path.dirname(name)).st_mode & 0o077 == 0
    (tmp_path / "audit/checkpoint").write_bytes(b"\xff\xfe")
    with pytest.raises(AuditDamaged, match="not text"):
        tiles.read_checkpoint()


def test_replaced_tiles_can_be_forgotten(tmp_path: Path) -> None:
    tiles = Tiles(str(tmp_path))
    tiles.write([File("tile/0/000.p/1", bytes(32)), File("tile/0/000.p/2", bytes(64))])
    tiles.remove_partial(0, 0, 1)
    assert tiles.read_tile(0, 0, 1) == [bytes(32)]
    tiles.remove_partial(0, 0, 2)
    tiles.remove_partial(0, 0, 2)
    assert not os.path.exists(tmp_path / "tile/0/000.p")
