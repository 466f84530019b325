"""docs/configuration.md and the example file, made from the types: `python -m openk_daemon.config_reference`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Final, cast, get_args, get_type_hints

import msgspec
from msgspec import NODEFAULT, inspect

from openk_daemon.config_aging import Retention, Rotation
from openk_daemon.config_running import Backup, Crypto, Levels, Log, Rate, Tuning
from openk_daemon.config_sources import VARIABLES
from openk_daemon.config_values import Audit, Cache, Config, Hardening, Hsm, Limits, Socket
from openk_daemon.config_watch import Alerts, Health, Metrics, Threshold

_TABLES: Final[tuple[tuple[str, type[msgspec.Struct]], ...]] = (
    ("", Config),
    ("hsm.NAME", Hsm),
    ("socket", Socket),
    ("limits", Limits),
    ("cache", Cache),
    ("crypto", Crypto),
    ("audit", Audit),
    ("backup", Backup),
    ("log", Log),
    ("log.levels", Levels),
    ("rate.NAME", Rate),
    ("rotation.NAME", Rotation),
    ("retention", Retention),
    ("metrics", Metrics),
    ("health", Health),
    ("alerts", Alerts),
    ("alerts.NAME", Threshold),
    ("tuning", Tuning),
    ("hardening", Hardening),
)
_NAMED: Final = ("rate", "rotation")
"""Tables of tables that may be left out, and that a reload changes."""
_HEAD: Final = """\
# Configuration of openkd

<!-- Made from daemon/openk_daemon/config_values.py by `python -m openk_daemon.config_reference`; edit that. -->

`openkd --config FILE` reads one TOML file, strictly: a key it does not know, a value out of its range or a rule
between keys that is broken stops the start with exit status 78, and every mistake is listed with file, line, key
and remedy. `openkd --dev DIR` needs no file: everything is inside `DIR`.

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

## Where values come from

One after the other; a later one replaces what an earlier one set, key by key:

1. the defaults below (with `--dev DIR`: those, and what `--dev` sets);
2. the file named with `--config`;
3. each `*.toml` in the folder `conf.d` beside it (with `--dev`: in `DIR/conf.d`), in the order of their names;
4. a few variables of the environment, for what a container or a test must move. Any other variable whose name
   begins with `OPENKD_` stops the start, like an unknown key.

@VARIABLES@
No secret is in any of them. The HSM's PIN is given to its worker only: a systemd credential, a file descriptor, a file
or a prompt (`openk-hsm serve --help`).

`openkd --config FILE --check-config` says what is wrong and stops; with `--show-config` it prints what would be in
force and where each value was set. Of the running daemon `openk config show` tells the same, and `openk config diff`
what a reload or a restart would change.

`systemctl reload openkd` (SIGHUP) reads all of them again, and the policies. With a mistake in them the daemon goes on
as it was and says so in its log. Otherwise keys with *reload* in the last column change at once; of any other key that
changed the log says that it waits for the next start (`config.waits`), and `openk config diff` keeps saying so. Each
reload is in the audit log. What waits for a start does so for a reason:

- `state`, `policies`, `user`, `backup.folder`, sockets, `metrics`: openkd is confined once they are open, and can open
  no others;
- `hsm`: which tokens the store belongs to is settled while it opens;
- `administrators`: who is one is settled when a connection is accepted, and policies were checked with them;
- locked memory, message sizes, queues, `in_flight`, `cache.keys`, `limits.decisions`: allotted at the start, or
  promised to clients that are connected.

## Keys

Paths are absolute. Sizes are bytes, times are seconds. Rules between keys:

- `limits.message_bytes` ≤ `limits.locked_memory_per_uid_bytes` ≤ `limits.locked_memory_bytes`
- every socket has a path of its own
- at least one HSM and one administrator are named
- an HSM has `sockets` or is a `group`; a group's members are HSMs with sockets, each in one group
- `backup.folder` is neither `state` nor in its `audit`; `backup.every_seconds` ≤ `backup.warn_seconds`
- no PIN is in the file: it is the credential of the HSM's worker (docs/operations.md)

Limits on requests, an example: no user but the administrators makes more than 200 requests a second or 50 signatures,
and the vault `payments` gets 1000 a second from all together:

```toml
[hsm.main]
sockets = ["/run/openk-hsm/main.sock"]
[rate.everybody]
per_second = 200
burst = 400
[rate.signatures]
per_second = 50
methods = ["key.sign"]
[rate.payments]
per_second = 1000
per = []
vaults = ["payments"]
```

Keys that are rotated, and keys that are told of, an example: AES keys after 90 days or a billion uses, by openkd
itself; keys of releases are told of after a year, for somebody has to publish the new public key:

```toml
[hsm.main]
sockets = ["/run/openk-hsm/main.sock"]
[rotation.quarterly]
after_days = 90
after_uses = 1_000_000_000
algorithms = ["aes-256-gcm"]
action = "rotate"
[rotation.releases]
after_days = 365
keys = ["build/release-*"]
purposes = ["sign"]
```

Where to look for what: parameters of cryptography are in `[crypto]`, rotation in `[rotation.NAME]`, access in the
policies (docs/policy.md), `administrators` and `[socket]`, rate limits in `[rate.NAME]`, tuning in `[tuning]`, limits
on resources in `[limits]` and `[cache]`, backups in `[backup]`, what is kept of the past in `[retention]`.
"""


def reference() -> str:
    """The whole page."""
    rows = "".join(f"| `{name}` | `{'.'.join(key)}` |\n" for name, key in VARIABLES.items())
    head = _HEAD.replace("@VARIABLES@", f"| variable | key |\n|---|---|\n{rows}")
    return head + "".join(_table(name, type_) for name, type_ in _TABLES)


def _table(name: str, type_: type[msgspec.Struct]) -> str:
    title = f"## [{name}]" if name else "## At the top of the file"
    about = "" if not name else f"\n{' '.join((type_.__doc__ or '').split())}\n"
    rows = "".join(f"| {' | '.join(row)} |\n" for row in _rows(type_))
    return f"\n{title}\n{about}\n| key | value | default | | changes with |\n|---|---|---|---|---|\n{rows}"


def _rows(type_: type[msgspec.Struct]) -> Iterator[tuple[str, str, str, str, str]]:
    hints = get_type_hints(type_, include_extras=True)
    for field in msgspec.structs.fields(type_):
        described = inspect.type_info(hints[field.name])
        if not isinstance(described, inspect.Metadata):
            continue  # a table of its own, or not for files
        (meta,) = (part for part in get_args(hints[field.name]) if isinstance(part, msgspec.Meta))
        live = "reload" if (meta.extra or {}).get("live") or field.name in _NAMED else "start"
        yield f"`{field.name}`", _value(described.type, field.name), _default(field), meta.description or "", live


def _value(type_: inspect.Type, name: str) -> str:
    """The kind of value with its range, in words."""
    match type_:
        case inspect.IntType() if name == "mode":
            return "permissions, octal"
        case inspect.IntType():
            return f"integer, {_number(type_.ge)} to {_number(type_.le)}"
        case inspect.FloatType() if type_.ge is None:
            return "number"
        case inspect.FloatType():
            return f"number, {_number(type_.ge)} to {_number(type_.le)}"
        case inspect.StrType():
            return f"text, at most {type_.max_length}"
        case inspect.LiteralType():
            return ", ".join(str(value) if isinstance(value, int) else f'"{value}"' for value in type_.values)
        case inspect.VarTupleType():
            inner = {"sockets": "paths", "administrators": "users", "users": "users"}.get(name, "names")
            if isinstance(type_.item_type, inspect.LiteralType):
                inner = "of " + ", ".join(f'"{value}"' for value in type_.item_type.values)
            return f"list of {type_.min_length or 0} to {type_.max_length} {inner}"
        case inspect.DictType():
            return "tables"
        case inspect.BoolType():
            return "true, false"
        case inspect.UnionType():
            return " or ".join(_value(part, name) for part in type_.types if not isinstance(part, inspect.NoneType))
        case _:
            return "path"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.name in _NAMED:
        return "none"
    if field.default_factory is not NODEFAULT or field.required:
        return "required"
    value = field.default
    if field.name == "mode":
        return f"`0o{value:o}`"
    if value == ():
        return "none"
    if isinstance(value, tuple):
        parts = cast("tuple[int | str, ...]", value)
        return f"`{json.dumps(parts)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value is None or value == "":
        return "none"
    return f"`{_number(value)}`" if isinstance(value, int | float) else f'`"{value}"`'


def _number(value: float | None) -> str:
    """1048576 as 1_048_576, which TOML reads too."""
    whole = int(value or 0)
    return f"{whole:_}" if whole == (value or 0) else str(value)


if __name__ == "__main__":
    sys.stdout.write(reference())
