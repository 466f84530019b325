"""Policy folders: any text as a policy file, any text as the schema. A crash of Cedar's parser ends the process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from unittest.mock import patch

import cedarpy

from openk_daemon.policy import loader
from openk_daemon.policy.cedar import parse_schema
from openk_daemon.policy.loader import PolicySet
from openk_daemon.policy.shipped import SCHEMA, shipped_policies
from openk_daemon.policy.statements import is_deep, split
from openk_daemon.refusal import Refusal
from tests.fuzz.scratch import scratch
from tests.fuzz.target import Target
from tests.support.policies import ADMINISTRATOR, NAMES, SYSTEM, caller

_SHIPPED = shipped_policies()
_SCHEMA_TEXT = (_SHIPPED / SCHEMA).read_text("utf-8")
_ALLOW = "permit (principal, action, resource) when { principal.administrator };\n"
_parse_schema = lru_cache(maxsize=1)(parse_schema)
"""Of 40 ms that a folder takes 34 are the schema's, which is mostly the same."""
_CODES = {"policy.invalid", "policy.lockout"}


def _load(policy: bytes, schema: bytes) -> PolicySet | None:
    """The set, or None where it was refused as a set is to be refused."""
    folder = scratch("policy")
    folder.chmod(0o755)
    for name, content in (("10-fuzzed.cedar", policy), (SCHEMA, schema)):
        (folder / name).write_bytes(content)
    try:
        with patch.object(loader, "parse_schema", _parse_schema):
            return loader.load(folder, {ADMINISTRATOR}, NAMES)
    except Refusal as refusal:
        assert refusal.code.name in _CODES  # noqa: PT017 - only where there was one
        told = f"{refusal} {refusal.details}"
        assert str(folder) not in told
        return None


def run_policy(data: bytes) -> None:
    """A set that loads answers every question, and lets somebody load the next."""
    loaded = _load(data, _SCHEMA_TEXT.encode())
    if loaded is None:
        return
    assert loaded.statements
    assert len({statement.id for statement in loaded.statements}) == len(loaded.statements)
    for asker in (caller(), caller(ADMINISTRATOR, administrator=True)):
        decision = loaded.judge.decide(asker, "policy.reload", SYSTEM)
        assert not (decision.allowed and decision.errors)
        assert set(decision.policies) <= {statement.id for statement in loaded.statements}
        assert set(decision.policies) <= loaded.judge.concerning(asker, "policy.reload", SYSTEM)
        assert not decision.allowed or decision.policies


def run_schema(data: bytes) -> None:
    _load(_ALLOW.encode(), data)


def run_split(data: bytes) -> None:
    """Nothing of the text is lost, lines are right, and Cedar parses the whole where it parses each part."""
    text = data.decode("utf-8", "replace")
    at = 0
    parts = list(split(text))
    for line, part in parts:
        begin = text.index(part, at)
        while line > 1 + text.count("\n", 0, begin):  # the same words stand in a comment before it
            begin = text.index(part, begin + 1)
        assert line == 1 + text.count("\n", 0, begin)
        for left in re.split(r"[\n\r]", text[at:begin]):
            assert not left.strip() or left.strip().startswith("//")
        at = begin + len(part)
    if is_deep(text) or not parts:
        return
    whole, counts = _count(text), [_count(part) for _, part in parts]
    assert whole == (len(parts) if counts.count(1) == len(parts) else None)


def _count(text: str) -> int | None:
    """How many policies Cedar sees; None where it cannot parse the text."""
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError:
        return None
    return len(parsed["staticPolicies"]) + len(parsed["templates"])


def _policies() -> Iterator[bytes]:
    for path in (*sorted(_SHIPPED.glob("*.cedar")), *sorted((_SHIPPED / "examples").glob("*.cedar"))):
        text = path.read_text("utf-8")
        yield (_ALLOW + text).encode()[:2000]
        for _, policy in islice(split(text), 4):
            yield (_ALLOW + policy).encode()
    yield (_ALLOW + "forbid (principal, action, resource) when { !(" + "(" * 20 + "true" + ")" * 20 + ") };").encode()


_WORDS = tuple(
    word.encode()
    for word in (
        "permit", "forbid", "principal", "action", "resource", "context", "when {", "unless {", "};", '@id("a")',
        "is", "in", "has", "like", "if", "then", "else", "&&", "||", "==", "!=", "<=", "!", "-", "true", "false",
        ".contains(", ".containsAll(", ".containsAny(", ".isEmpty()", 'ip("1.2.3.4")', 'decimal("1.0")', "//", "\r", '"',
        "\\u{10ffff}", "\\*", "?principal", "::", 'Action::"key.sign"', 'System::""', "Vault", "Key", "Secret",
        "principal.uid", "principal.unit", "principal.executable", "principal.administrator", "resource.purpose",
        "9223372036854775807", "((((((((((", "[[[[[[[[[[", '{"a":', "entity", "type", "appliesTo", "enum", "Set<",
        "namespace", "Long", "String", "Bool", "__cedar::Long", "tags",
    )
)  # fmt: skip

TARGETS = (
    Target("policy", run_policy, _policies, _WORDS, 2048, 400),
    Target("policy-schema", run_schema, lambda: [_SCHEMA_TEXT.encode()], _WORDS, 1 << 14, 400),
    Target("policy-split", run_split, _policies, _WORDS, 1024, 1200),
)
