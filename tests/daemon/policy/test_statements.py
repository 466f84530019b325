"""Policy files are cut where Cedar's own parser would cut them."""

from __future__ import annotations

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.policy.shipped import shipped_policies
from openk_daemon.policy.statements import DEPTH_MOST, OPERATORS_MOST, is_deep, is_deep_schema, split

strings = st.lists(st.sampled_from(["a", ";", "//", '\\"', "\\\\", "'", "{", "\n"])).map(
    lambda parts: f'"{"".join(parts)}"'
)
comments = st.lists(st.sampled_from(["a", ";", '"', "//", "permit"])).map(lambda parts: f"//{''.join(parts)}\n")
spaces = st.sampled_from([" ", "\n", "\t", "\r\n"])
gaps = st.lists(st.one_of(spaces, comments), max_size=3).map("".join)
statements = st.builds(
    "@id({}) permit{}(principal, action, resource) when {{ principal.name =={}{} }}{};".format,
    st.just('"a"'), gaps, gaps, strings, gaps,
)  # fmt: skip


@given(st.lists(st.tuples(gaps, statements)), gaps)
def test_pieces_are_the_policies_with_their_lines(parts: list[tuple[str, str]], end: str) -> None:
    text = "".join(gap + statement for gap, statement in parts) + end
    pieces = list(split(text))
    assert [piece for _, piece in pieces] == [statement for _, statement in parts]
    for line, piece in pieces:
        assert "\n".join(text.split("\n")[line - 1 :]).find(piece[:20].split("\n")[0]) >= 0
    assert len(cedarpy.PolicySet.from_str(text)) == len(pieces)


@given(st.text(alphabet='permit(),;"/\\\n aé{}'))
def test_any_text_is_cut_without_loss(text: str) -> None:
    pieces = [piece for _, piece in split(text)]
    rest = text
    for piece in pieces:
        before, found, rest = rest.partition(piece)
        assert found == piece
        assert all(line.strip() == "" or line.strip().startswith("//") for line in before.split("\n"))
    assert all(line.strip() == "" or line.strip().startswith("//") for line in rest.split("\n"))
    is_deep(text)


def test_lines_are_counted_from_one() -> None:
    text = '// one\n\n@id("a")\npermit (principal, action, resource);\n  forbid (principal,\n action, resource);'
    assert [line for line, _ in split(text)] == [3, 5]


def test_depth_is_counted_outside_of_strings_and_comments() -> None:
    assert not is_deep('"' + "(" * 100 + '" // ' + "(" * 100 + "+" * 2000 + "\n")
    assert not is_deep("(" * DEPTH_MOST + ")" * DEPTH_MOST)
    assert is_deep("(" * (DEPTH_MOST + 1))
    assert not is_deep("a" + " + a" * OPERATORS_MOST)
    assert is_deep("a" + " + a" * (OPERATORS_MOST + 1))
    assert not is_deep("[" + "1," * 5000 + "]")


def test_shipped_policies_are_far_from_deep() -> None:
    for path in shipped_policies().rglob("*.cedar"):
        assert not is_deep(path.read_text("utf-8"))


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_comment_ends_where_it_ends_for_cedar(end: str) -> None:
    """A forbid behind a carriage return was once taken for a part of the comment before it, and had no effect."""
    text = f"permit (principal, action, resource); // never:{end}forbid (principal, action, resource);"
    assert len(cedarpy.PolicySet.from_str(text)) == 2
    assert [piece.partition(" ")[0] for _, piece in split(text)] == ["permit", "forbid"]
    assert is_deep(f"// {end}" + "(" * (DEPTH_MOST + 1))
    assert is_deep_schema(f"// {end}" + "{" * (DEPTH_MOST + 1))


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x1e", "\x85", "\u2028"])
def test_other_separators_end_no_comment(end: str) -> None:
    text = f"permit (principal, action, resource); // never:{end}forbid (principal, action, resource);"
    assert len(cedarpy.PolicySet.from_str(text)) == len(list(split(text))) == 1
