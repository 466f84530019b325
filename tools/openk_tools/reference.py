"""Writes what the tables say into docs/: reference.md (methods), errors.md (codes) and man/*.1 (commands).

`python -m openk_tools.reference [DOCS]` writes them into the folder DOCS, by default docs/ of this checkout.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from openk.wire.codes import CODES, Code
from openk.wire.methods import METHODS, Field, Kind, Method
from openk_tools import manual
from openk_tools.examples import EXAMPLES
from openk_tools.touches import words_of

DOCS: Final = Path(__file__).parents[2] / "docs"
_MADE: Final = "<!-- Made by `python -m openk_tools.reference`; change the table, not this page. -->\n"

_METHODS_HEAD: Final = f"""# Methods

{_MADE}
A request is `[0, msgid, method, [params]]` with one map of the fields below ([protocol.md](protocol.md)).
A `bytes` field also takes the str family. Fields marked *secret* stay in locked memory inside the daemon.

A method with *item fields* is a batch method: instead of the item fields it takes `items`, a list of maps of
them, and answers `results`, a list in the same order of result maps or `{{"error": {{...}}}}`.

"""

_ERRORS_HEAD: Final = f"""# Errors

{_MADE}
Numbers and names never change their meaning. On the wire an error is `[number, "code: message"]`, or after
`system.hello` with `errors: "map"` a map of `code`, `message`, `request`, and where they apply `retry_after` (seconds)
and `details`. *Fault* says who has to do something about it: the caller, the device, the store's disk, the operator
(nothing comes back by itself), or the daemon. *Retry* says whether the same request may succeed later; *exit* is the
exit status of `openk`.

Whatever the form, an error never says more than this: the code, one sentence made from the code's meaning and from what
the caller sent (names and numbers), the request's id, and details of the code. No secret, no path of the server, no
stack, no text of a library or a device. The request's id finds the whole story in the daemon's log.

Over HTTP an error is a problem (RFC 9457, `openk.wire.problem`), over gRPC a `google.rpc.Status`
(`openk.wire.rpc_status`); both are made from this table. How a new code is chosen and added:
[how-to-add-an-error.md](how-to-add-an-error.md).
"""

_GROUPS: Final = {
    "request": "The request itself",
    "auth": "Who is calling",
    "policy": "What policy says",
    "key": "Keys",
    "vault": "Vaults",
    "secret": "Secrets",
    "hsm": "The HSM",
    "store": "The store",
    "audit": "The audit log",
    "backup": "The backups",
    "internal": "openk itself",
    "daemon": "The daemon",
}


def pages() -> dict[str, str]:
    """Each page's text under its path inside docs/."""
    made = {"reference.md": methods_page(METHODS.values()), "errors.md": errors_page(CODES.values())}
    made.update({f"man/{name}": text for name, text in manual.pages().items()})
    return made


def methods_page(methods: Iterable[Method]) -> str:
    listed = list(methods)
    contents = "".join(f"- [`{method.name}`](#{_anchor(method)}): {method.summary}\n" for method in listed)
    return _METHODS_HEAD + contents + "".join(f"\n{_method(method)}" for method in listed)


def _anchor(method: Method) -> str:
    return method.name.replace(".", "")


def _method(method: Method) -> str:
    verb = " ".join(words_of(method))
    target = f", named by `{method.target}`" if method.target else ""
    changes = " Changes what is stored." if method.changes else ""
    parts = [f"## {method.name}\n\n{method.summary}\n\nCedar resource: `{method.on}`{target}.{changes}\n"]
    parts.append(_fields("Fields", method.fields))
    parts.append(_fields("Item fields", method.item))
    parts.append(_fields("Result", method.result))
    if examples := EXAMPLES.get(verb):
        lines = "\n".join(examples)
        parts.append(f"\n```sh\n{lines}\n```\n")
    return "".join(parts)


def _fields(title: str, fields: Sequence[Field]) -> str:
    if not fields:
        return ""
    result = title == "Result"
    rows = "".join(f"| `{field.name}` | {_kind(field, result=result)} | {_about(field)} |\n" for field in fields)
    return f"\n| {title} | Type | |\n|---|---|---|\n{rows}"


def _kind(field: Field, *, result: bool) -> str:
    optional = "" if field.required else ", optional"
    most = ""
    if not result and field.kind in (Kind.BYTES, Kind.TEXT) and not field.choices:
        most = f", at most {field.most:,} {'bytes' if field.kind is Kind.BYTES else 'characters'}"
    elif not result and field.kind is Kind.INTEGER:
        most = f", at most {field.most:,}"
    secret = ", *secret*" if field.secret else ""
    return f"{field.kind.value}{optional}{most}{secret}"


def _about(field: Field) -> str:
    choices = f" One of {', '.join(f'`{choice}`' for choice in field.choices)}." if field.choices else ""
    return f"{field.summary}{choices}".replace("|", "\\|")


def errors_page(codes: Iterable[Code]) -> str:
    return _ERRORS_HEAD + "".join(_error_groups(codes))


def _error_groups(codes: Iterable[Code]) -> Iterator[str]:
    for group, rows in groupby(codes, key=lambda code: code.name.partition(".")[0]):
        yield f"\n## {_GROUPS[group]}\n\n"
        yield "| Code | Number | What it means | What to do | Fault | Retry | HTTP | gRPC | Exit |\n"
        yield "|---|---|---|---|---|---|---|---|---|\n"
        for row in rows:
            retry = "yes" if row.retry else "no"
            doors = f"{row.http} | {row.grpc} | {row.exit}"
            yield f"| `{row.name}` | {row.number} | {row.meaning} | {row.advice} | {row.fault} | {retry} | {doors} |\n"


def write(folder: Path) -> list[Path]:
    """Write every page whose text differs, remove manual pages of commands that are gone; returns what changed."""
    changed: list[Path] = []
    made = pages()
    for name, text in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    for path in (folder / "man").glob("*.1"):
        if f"man/{path.name}" not in made:
            path.unlink()
            changed.append(path)
    return changed


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    for path in write(folder):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
