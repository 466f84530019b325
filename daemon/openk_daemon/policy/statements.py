"""Cut the text of a policy file into its policies, each with the line it begins on.

Cedar's parser does not tell where a mistake is, so each policy is parsed by itself. A `;` ends a policy and nothing
else in Cedar's grammar (docs.cedarpolicy.com, "Cedar syntax grammar"), unless it is in a string or a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_TOKEN: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"?|;|\s+|[^\s";/]+|/', re.DOTALL)


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
