"""A policy folder, read and checked as a whole: either a set that can be put in force, or every mistake in it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import cedarpy

from openk.wire.methods import METHODS
from openk_daemon.identity.caller import Caller
from openk_daemon.policy.cedar import Judge, Mistake, Statement, parse_policy, parse_schema
from openk_daemon.policy.decision import Resource
from openk_daemon.policy.files import Unfit, policy_files, read_file
from openk_daemon.policy.mentions import mentions
from openk_daemon.policy.names import Names
from openk_daemon.policy.shipped import SCHEMA
from openk_daemon.policy.statements import split
from openk_daemon.refusal import Refusal

EXPLAIN_OTHERS: Final = "policy.explain_others"
"""The one action that is no method: `policy.explain` about another user or unit."""

_MISTAKES_MOST: Final = 32  # in one reply
_TRIALS_MOST: Final = 256  # units and programs to try an administrator in
_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SAMPLES: Final = {
    "System": Resource("System", ""),
    "Vault": Resource("Vault", "v"),
    "Key": Resource("Key", "v/k", (("algorithm", "p-256"), ("purpose", "sign"), ("protection", "wrapped"))),
    "Secret": Resource("Secret", "v/s"),
}


@dataclass(frozen=True, slots=True, eq=False)
class PolicySet:
    """A checked set with what it was made from. Immutable; `administrators` are uids. `digest` is the SHA-256, in
    hex, over the files' names and contents, so that the audit log can tell which set was in force."""

    statements: Sequence[Statement]
    judge: Judge
    names: Names
    administrators: frozenset[int]
    digest: str


def load(folder: Path, administrators: Collection[int], names: Names) -> PolicySet:
    """The set in `folder`. Raises Refusal: policy.invalid with all mistakes as details (file names and lines, no
    paths), or policy.lockout."""
    try:
        files = {name: read_file(folder, name) for name in policy_files(folder)}
        schema_text = read_file(folder, SCHEMA)
    except Unfit as error:
        raise _invalid([str(error)]) from error
    try:
        schema = parse_schema(schema_text)
    except Mistake as error:
        raise _invalid([f"{SCHEMA}: {error}: copy the one shipped with this version of openk"]) from error
    mistakes: list[str] = []
    statements: list[Statement] = []
    for name, text in files.items():
        statements.extend(_statements(name, text, schema, mistakes))
    if not statements and not mistakes:
        mistakes.append("the *.cedar files hold no policy: copy the shipped ones, or nobody could do anything")
    if mistakes:
        raise _invalid(mistakes)
    try:
        judge = Judge(statements, schema, names)
    except Mistake as error:  # each was parsed before: this is about the set
        raise _invalid([str(error)]) from error
    loaded = PolicySet(statements, judge, names, frozenset(administrators), _digest({**files, SCHEMA: schema_text}))
    _check_schema(judge)
    _check_lockout(loaded)
    return loaded


def _digest(files: Mapping[str, str]) -> str:
    """Each file's name and content with their lengths before them: no two sets of files are written alike."""
    digest = hashlib.sha256()
    for part in (part.encode() for item in files.items() for part in item):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _statements(name: str, text: str, schema: cedarpy.Schema, mistakes: list[str]) -> Iterator[Statement]:
    seen: dict[str, int] = {}
    for number, (line, policy) in enumerate(split(text), 1):
        try:
            tree = parse_policy(policy, schema)
        except Mistake as error:
            mistakes.append(f"{name}:{line}: {_annotated(policy) or f'policy {number}'}: {error}")
            continue
        annotations = cast("Mapping[str, str]", tree.get("annotations", {}))
        id_ = annotations.get("id", str(number))
        if not _ID.fullmatch(id_):
            mistakes.append(f"{name}:{line}: @id({id_!r}): an id is 1 to 64 of A-Z a-z 0-9 _ . -")
        elif id_ in seen:
            mistakes.append(f"{name}:{line}: @id({id_!r}) is also the id of line {seen[id_]}: ids are unique in a file")
        else:
            seen[id_] = line
            yield Statement(f"{name.removesuffix('.cedar')}.{id_}", name, line, tree)


def _annotated(policy: str) -> str:
    """The id of a policy that may not parse, for its error message."""
    found = re.search(r'@id\s*\(\s*"([^"\n]{1,64})"', policy)
    return f"policy {found[1]!r}" if found else ""


def _check_schema(judge: Judge) -> None:
    """Each method must be askable: the schema of another version would turn every such request into a denial."""
    nobody = Caller(1, 1, (1,), "a.service", None, "/a", administrator=False)
    asked = {**{method.name: method.on for method in METHODS.values()}, EXPLAIN_OTHERS: "System"}
    for action, kind in asked.items():
        wrong = [error for error in judge.decide(nobody, action, _SAMPLES[kind]).errors if "evaluating" not in error]
        if wrong:
            raise _invalid([f"{SCHEMA}: {wrong[0]}: it is of another version: copy the one shipped with this openk"])


def _check_lockout(loaded: PolicySet) -> None:
    """Some administrator must be able to load the next set, as whatever unit or program the policies speak of."""
    spoken = mentions(statement.tree for statement in loaded.statements)
    units = (None, *sorted(spoken.texts("principal", "unit")))
    programs = (None, *sorted(spoken.texts("principal", "executable")))
    system = _SAMPLES["System"]
    trials = 0
    for unit in units:
        for program in programs:
            for uid in sorted(loaded.administrators):
                groups = loaded.names.member.get(uid, (uid,))
                caller = Caller(uid, groups[0], groups, unit, None, program, administrator=True)
                if loaded.judge.decide(caller, "policy.reload", system).allowed:
                    return
                trials += 1
                if trials >= _TRIALS_MOST:
                    raise _locked_out()
    raise _locked_out()


def _locked_out() -> Refusal:
    return Refusal(
        "policy.lockout",
        'With this set no administrator could do "policy.reload", so it could not be corrected. '
        "Permit it to someone (see 10-administrators.cedar), or look for a forbid that includes it.",
    )


def _invalid(mistakes: list[str]) -> Refusal:
    shown = mistakes[:_MISTAKES_MOST]
    if len(mistakes) > len(shown):
        shown.append(f"and {len(mistakes) - len(shown)} more")
    return Refusal(
        "policy.invalid", f"The policy set has mistakes. {' | '.join(shown[:3])}", details={"mistakes": shown}
    )
