"""Cut the text of a policy file into its policies, each with the line it begins on.

Cedar's parser does not tell where a mistake is, so each policy is parsed by itself. A `;` ends a policy and nothing
else in Cedar's grammar (docs.cedarpolicy.com, "Cedar syntax grammar"), unless it is in a string or a comment. A comment
ends at a line feed or a carriage return: what Cedar reads behind it must not be taken for a part of the comment here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

DEPTH_MOST: Final = 50
OPERATORS_MOST: Final = 1000
POLICY_MOST: Final = 64 << 10
"""Characters of one policy. Cedar's time grows with the square of a list: 30,000 actions in a scope take 10 seconds."""
_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
_WORD: Final = re.compile(r"//[^\n\r]*|\"(?:[^\"\\]|\\.)*\"?|[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[=!<>&|]+|\S", re.DOTALL)
_WEIGHTLESS: Final = frozenset(",:;@")

_TOKEN: Final = re.compile(r'//[^\n\r]*|"(?:[^"\\]|\\.)*"?|;|\s+|[^\s";/]+|/', re.DOTALL)


def split(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line from 1, text) of each policy; text is as written, comments inside it included. What follows the
    last `;` is yielded too, unless it is only space and comments: the parser then says what is wrong with it."""
    begin, line, first = -1, 1, 1
    for token in _TOKEN.finditer(text):
        word = token[0]
        if begin < 0 and not word.isspace() and not word.startswith("//"):
            begin, first = token.start(), line
        if word == ";":
            yield first, text[begin : token.end()]
            begin = -1
        line += word.count("\n")
    if begin >= 0:
        yield first, text[begin:]


def is_deep(text: str) -> bool:
    """Whether a policy is nested beyond DEPTH_MOST brackets or OPERATORS_MOST operators. Cedar's parser recurses:
    at about 500 brackets, or 20,000 operators in a row, it overflows the stack, and the daemon would be gone."""
    depth = operators = 0
    for token in _WORD.finditer(text):
        word = token[0]
        if word in _OPENING:
            depth += 1
            if depth > DEPTH_MOST:
                return True
        elif word in _CLOSING:
            depth -= 1
        elif word == "if" or not (word in _WEIGHTLESS or word[0].isalnum() or word[0] in '_"' or word[:2] == "//"):
            operators += 1
    return operators > OPERATORS_MOST


def is_deep_schema(text: str) -> bool:
    """Whether a schema is nested beyond DEPTH_MOST brackets, those of Set<...> among them: its parser recurses, too."""
    depth = 0
    for token in _WORD.finditer(text):
        word = token[0]
        if word[0] == '"' or word[:2] == "//":
            continue
        for character in word:
            depth += (character in "([{<") - (character in ")]}>")
            if depth > DEPTH_MOST:
                return True
    return False
