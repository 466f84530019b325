"""docs/configuration.md and the example file, made from the types: `python -m openk_daemon.config_reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final, cast, get_args, get_type_hints

import msgspec
from msgspec import NODEFAULT, inspect

from openk_daemon.config_values import Audit, Cache, Config, Hardening, Hsm, Limits, Log, Metrics, Socket

_TABLES: Final[tuple[tuple[str, type[msgspec.Struct]], ...]] = (
    ("", Config),
    ("hsm.NAME", Hsm),
    ("socket", Socket),
    ("limits", Limits),
    ("cache", Cache),
    ("audit", Audit),
    ("log", Log),
    ("metrics", Metrics),
    ("hardening", Hardening),
)
_HEAD: Final = """\
# Configuration of openkd

<!-- Made from daemon/openk_daemon/config_values.py by `python -m openk_daemon.config_reference`; edit that. -->

`openkd --config FILE` reads one TOML file, strictly: a key it does not know, a value out of its range or a rule
between keys that is broken stops the start with exit status 78, and every mistake is listed with file, line, key
and remedy. Nothing is read from the environment. `openkd --dev DIR` needs no file: everything is inside `DIR`.

The smallest file that works:

```toml
[hsm.main]
sockets = ["/run/openk-hsm/main.sock"]
```

Two HSMs with root keys of their own; vaults are made on `main` unless `vault.create` names `vendor`:

```toml
[hsm.main]
sockets = ["/run/openk-hsm/main.sock"]
[hsm.vendor]
sockets = ["/run/openk-hsm/vendor-0.sock", "/run/openk-hsm/vendor-1.sock"]
```

Two HSMs with the same root keys, as one:

```toml
[hsm.main]
group = ["left", "right"]
[hsm.left]
sockets = ["/run/openk-hsm/left.sock"]
[hsm.right]
sockets = ["/run/openk-hsm/right.sock"]
```

Paths are absolute. Sizes are bytes, times are seconds. Rules between keys:

- `limits.message_bytes` ≤ `limits.locked_memory_per_uid_bytes` ≤ `limits.locked_memory_bytes`
- every socket has a path of its own
- at least one HSM and one administrator are named
- an HSM has `sockets` or is a `group`; a group's members are HSMs with sockets, each in one group
- no PIN is in the file: it is the credential of the HSM's worker (docs/operations.md)

Changes take effect at the next start. Policy files are separate and can be loaded while openkd runs (docs/policy.md).
"""


def reference() -> str:
    """The whole page."""
    return _HEAD + "".join(_table(name, type_) for name, type_ in _TABLES)


def _table(name: str, type_: type[msgspec.Struct]) -> str:
    title = f"## [{name}]" if name else "## At the top of the file"
    about = "" if not name else f"\n{' '.join((type_.__doc__ or '').split())}\n"
    rows = "".join(f"| {' | '.join(row)} |\n" for row in _rows(type_))
    return f"\n{title}\n{about}\n| key | value | default | |\n|---|---|---|---|\n{rows}"


def _rows(type_: type[msgspec.Struct]) -> Iterator[tuple[str, str, str, str]]:
    hints = get_type_hints(type_, include_extras=True)
    for field in msgspec.structs.fields(type_):
        described = inspect.type_info(hints[field.name])
        if not isinstance(described, inspect.Metadata):
            continue  # a table of its own, or not for files
        (meta,) = (part for part in get_args(hints[field.name]) if isinstance(part, msgspec.Meta))
        yield f"`{field.name}`", _value(described.type, field.name), _default(field), meta.description or ""


def _value(type_: inspect.Type, name: str) -> str:
    """The kind of value with its range, in words."""
    match type_:
        case inspect.IntType() if name == "mode":
            return "permissions, octal"
        case inspect.IntType():
            return f"integer, {_number(type_.ge)} to {_number(type_.le)}"
        case inspect.FloatType():
            return f"number, {_number(type_.ge)} to {_number(type_.le)}"
        case inspect.StrType():
            return f"text, at most {type_.max_length}"
        case inspect.LiteralType():
            return ", ".join(f'"{value}"' for value in type_.values)
        case inspect.VarTupleType():
            inner = {"administrators": "users", "group": "names"}.get(name, "paths")
            return f"list of {type_.min_length or 0} to {type_.max_length} {inner}"
        case inspect.DictType():
            return "tables"
        case _:
            return "path"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not NODEFAULT or field.required:
        return "required"
    value = field.default
    if field.name == "mode":
        return f"`0o{value:o}`"
    if value == ():
        return "none"
    if isinstance(value, tuple):
        return f"`{list(cast('tuple[int, ...]', value))}`"
    if value is None or value == "":
        return "none"
    return f"`{_number(value)}`" if isinstance(value, int | float) else f'`"{value}"`'


def _number(value: float | None) -> str:
    """1048576 as 1_048_576, which TOML reads too."""
    whole = int(value or 0)
    return f"{whole:_}" if whole == (value or 0) else str(value)


if __name__ == "__main__":
    sys.stdout.write(reference())
