"""Every method of the protocol, as data. The daemon checks requests against this table, `system.methods`
serves it, the CLI makes its commands from it, and docs/reference.md is generated from it.

A *batch* method takes either its item fields beside the shared ones, or `items`: a list of maps of item
fields; it then answers `results`: a list, in order, of result maps or `{"error": {...}}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """The type of a field on the wire. A `bytes` field also accepts the str family (older clients)."""

    BYTES = "bytes"
    TEXT = "text"
    INTEGER = "integer"
    FLAG = "flag"
    FIELDS = "fields"  # map of text to bytes
    TEXTS = "texts"  # list of text
    MAP = "map"  # results only: a map described in the summary
    LIST = "list"  # results only: a list of maps described in the summary
    INTEGERS = "integers"  # results only: a list of integers


@dataclass(frozen=True, slots=True)
class Field:
    """`secret`: never leaves locked memory on its way. `most`: bytes, characters, or the greatest integer."""

    name: str
    kind: Kind
    summary: str
    required: bool = True
    secret: bool = False
    most: int = 1 << 20
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Method:
    """`on` is the Cedar resource type the method acts on, and `target` the field that names it."""

    name: str
    summary: str
    on: str
    target: str | None
    fields: tuple[Field, ...] = ()
    item: tuple[Field, ...] = ()
    result: tuple[Field, ...] = ()
    changes: bool = False


ALGORITHMS: Final = (
    "aes-256-gcm", "hmac-sha-256", "hmac-sha-384", "hmac-sha-512", "ed25519", "p-256", "p-384", "p-521",
    "rsa-2048", "rsa-3072", "rsa-4096", "x25519", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87",
    "ml-kem-512", "ml-kem-768", "ml-kem-1024",
)  # fmt: skip
PURPOSES: Final = ("encrypt", "wrap", "mac", "derive", "sign", "decrypt", "agree", "encapsulate")
PROTECTIONS: Final = ("wrapped", "resident", "cached")
HASHES: Final = ("sha-1", "sha-256", "sha-384", "sha-512")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_CATEGORIES: Final = ("requests", "crypto", "storage", "hsm", "policy", "audit", "lifecycle")
HSM_CHECKS: Final = ("random", "hmac", "audit-key", "signature", "agreement", "wrapping", "context", "blob", "sealing", "seal")
HSM_OPERATIONS: Final = ("random", "hmac-sha-256", "aes-256-gcm", "ed25519", "p-256", "generate-p-256")
NAME_MOST: Final = 256

_KEY = Field("key", Kind.TEXT, "The key, as VAULT/NAME.", most=NAME_MOST)
_VAULT = Field("vault", Kind.TEXT, "The vault's name.", most=64)
_SECRET = Field("secret", Kind.TEXT, "The secret, as VAULT/NAME.", most=NAME_MOST)
_VERSION = Field("version", Kind.INTEGER, "Key version; the newest when left out.", required=False, most=1 << 31)
_AAD = Field("aad", Kind.BYTES, "Additional authenticated data: needed again, unchanged, to open.", required=False)
_HASH = Field("hash", Kind.TEXT, "Hash function, where the algorithm leaves a choice.", required=False, most=8, choices=HASHES)
_PADDING = Field("padding", Kind.TEXT, "RSA signatures: pss or pkcs1v15.", required=False, most=8, choices=("pss", "pkcs1v15"))
_PREHASHED = Field("prehashed", Kind.FLAG, "The input is already the digest.", required=False)
_AFTER = Field("after", Kind.TEXT, "Continue behind this name.", required=False, most=NAME_MOST)
_LIMIT = Field("limit", Kind.INTEGER, "At most so many.", required=False, most=1000)
_INPUT = Field("input", Kind.BYTES, "What to work on.", secret=True)
_MESSAGE = Field("input", Kind.BYTES, "What to work on.")
_LENGTH = Field("length", Kind.INTEGER, "Bytes wanted.", required=False, most=4096)
_HSM = Field("hsm", Kind.TEXT, "Which HSM, as configured; the first when left out.", required=False, most=32)


def _out(name: str, summary: str, kind: Kind = Kind.BYTES, *, secret: bool = False, required: bool = True) -> Field:
    return Field(name, kind, summary, required=required, secret=secret)


_KEY_VERSION = _out("version", "The key version used.", Kind.INTEGER)
_DESCRIPTION = (
    _out("key", "VAULT/NAME", Kind.TEXT), _out("algorithm", "Its algorithm.", Kind.TEXT),
    _out("purpose", "Its one job.", Kind.TEXT), _out("protection", "Where it lives.", Kind.TEXT),
    _out("version", "Newest version.", Kind.INTEGER),
    _out("versions", "Each version: version, created (RFC 3339), uses (nil where not limited, so not counted).", Kind.LIST),
    _out("due", "When a rule of the configuration has it rotated: at (RFC 3339; nil while only its uses will tell), rule, action (rotate or tell).",
         Kind.MAP, required=False),
)  # fmt: skip

_VAULT_SHOWN = (
    _out("vault", "Its name.", Kind.TEXT),
    _out("created", "RFC 3339.", Kind.TEXT),
    _out("hsm", "Which HSM its keys live on, as configured.", Kind.TEXT, required=False),
)

_HSM_USED = _out("hsm", "Which HSM, as configured.", Kind.TEXT)

_TABLE: Final = (
    Method("system.hello", "Open a session: says who the caller is and settles the form of errors.", "System", None,
           (Field("errors", Kind.TEXT, "map: errors as maps.", required=False, most=8, choices=("map", "pair")),),
           result=(_out("version", "openk's version.", Kind.TEXT), _out("caller", "The caller as the kernel tells it.", Kind.MAP),
                   _out("limits", "Bytes a message, requests in flight.", Kind.MAP))),
    Method("system.ping", "Answer at once.", "System", None,
           (Field("echo", Kind.BYTES, "Sent back.", required=False, most=4096),), result=(_out("echo", "What was sent.", required=False),)),
    Method("system.methods", "Describe every method.", "System", None, result=(_out("methods", "This table.", Kind.LIST),)),
    Method("system.health", "State of the daemon and its parts.", "System", None,
           result=(_out("status", "ok, degraded or failed.", Kind.TEXT), _out("components", "State of each part.", Kind.MAP))),
    Method("system.info", "Versions, HSM lanes, store, uptime.", "System", None, result=(_out("info", "Facts.", Kind.MAP),)),
    Method("system.metrics", "Metrics in the Prometheus text format.", "System", None, result=(_out("text", "The exposition.", Kind.TEXT),)),
    Method("system.history", "What the daemon's signals were: the last hour every 10 s, or the last week every 5 min.", "System", None,
           (Field("span", Kind.TEXT, "hour (default) or week.", required=False, most=8, choices=("hour", "week")),
            Field("signal", Kind.TEXT, "Only this one.", required=False, most=64)),
           result=(_out("seconds", "Between two values.", Kind.INTEGER), _out("end", "Unix time of the newest value; 0: there is none yet.", Kind.INTEGER),
                   _out("signals", "Each: signal, unit, summary, now, values (oldest first, in millionths of the unit, nil where not known; a week's are means, with lows "
                                   "and highs beside them).", Kind.LIST))),
    Method("system.alerts", "The alerts that the daemon raises by itself.", "System", None,
           result=(_out("alerts", "Each: alert, severity (page or ticket), raised, since (Unix time or nil), signal, value, raise_at, clear_at (in millionths), for_seconds, text.", Kind.LIST),
                   _out("cursor", "Where the event stream is: `after` of system.events.", Kind.TEXT))),
    Method("system.events", "The event stream: what happened to the daemon as a whole; with `wait`, as soon as something does.", "System", None,
           (Field("after", Kind.TEXT, "The cursor of an earlier answer; all that is kept when left out.", required=False, most=32),
            Field("wait", Kind.INTEGER, "Seconds to wait for an event.", required=False, most=60)),
           result=(_out("events", "Each: number, kind (alert.raised, alert.cleared, health.changed, config.reloaded, config.refused, policy.reloaded, policy.refused, backup.made, backup.failed, keys.rotated, sealed, "
                                  "unsealed, stopping), at (Unix time), severity (page, ticket or info), subject (the alert), value (in millionths or nil), text.", Kind.LIST),
                   _out("cursor", "To go on with.", Kind.TEXT),
                   _out("lost", "Events behind the given cursor that are not kept any more.", Kind.INTEGER),
                   _out("restarted", "The cursor is from before the daemon's last start: these are the events since that.", Kind.FLAG))),
    Method("system.config", "The configuration in force, key by key, and where each value was set.", "System", None,
           result=(_out("settings", "Each: key, value, origin, live (a reload changes it).", Kind.LIST),)),
    Method("system.config_changes", "What the configuration files say that is not in force.", "System", None,
           result=(_out("changes", "Each: key, running, files, origin, live (a reload changes it; otherwise a restart).", Kind.LIST),
                   _out("mistakes", "What is wrong in the files: a reload would change nothing.", Kind.TEXTS))),
    Method("system.log_level", "The levels of the log's categories; with `level`, set them until the next reload or start.", "System", None,
           (Field("category", Kind.TEXT, "Only this category; all when left out.", required=False, most=16, choices=LOG_CATEGORIES),
            Field("level", Kind.TEXT, "The least important that is written from now on.", required=False, most=8, choices=LOG_LEVELS)),
           result=(_out("levels", "Level by category.", Kind.MAP),)),
    Method("system.seal", "Wipe every key, log the HSMs out, and serve nothing until somebody unseals.", "System", None,
           (Field("reason", Kind.TEXT, "Why, for the audit log.", required=False, most=256),),
           result=(_out("sealed", "True.", Kind.FLAG),)),
    Method("system.unseal", "Have the workers log in anew, each with the PIN from its own source, and serve again.", "System", None,
           result=(_out("sealed", "False.", Kind.FLAG), _out("hsms", "HSMs that logged in.", Kind.TEXTS))),
    Method("vault.create", "Create a vault: a place for keys and secrets with keys of its own.", "Vault", "vault",
           (_VAULT, Field("hsm", Kind.TEXT, "Which HSM its keys live on, as configured; the first when left out.", required=False, most=32)),
           result=_VAULT_SHOWN, changes=True),
    Method("vault.list", "List vaults.", "System", None, (_AFTER, _LIMIT), result=(_out("vaults", "Each: vault, created, hsm.", Kind.LIST),)),
    Method("vault.describe", "Describe a vault.", "Vault", "vault", (_VAULT,),
           result=_VAULT_SHOWN),
    Method("key.create", "Create a key in a vault.", "Key", "key", (
        _KEY,
        Field("algorithm", Kind.TEXT, "What key.", most=32, choices=ALGORITHMS),
        Field("purpose", Kind.TEXT, "Its one job; the algorithm's usual one when left out.", required=False, most=16, choices=PURPOSES),
        Field("protection", Kind.TEXT, "wrapped (default), resident or cached.", required=False, most=16, choices=PROTECTIONS),
    ), result=_DESCRIPTION, changes=True),
    Method("key.list", "List the keys of a vault.", "Vault", "vault", (_VAULT, _AFTER, _LIMIT),
           result=(_out("keys", "Each: key, algorithm, purpose, protection, version; due, as key.describe has it, where a rule concerns the key.", Kind.LIST),)),
    Method("key.describe", "Describe a key and its versions.", "Key", "key", (_KEY,), result=_DESCRIPTION),
    Method("key.public", "The public half.", "Key", "key", (_KEY, _VERSION),
           result=(_KEY_VERSION, _out("algorithm", "Its algorithm.", Kind.TEXT), _out("public", "SubjectPublicKeyInfo, DER (RFC 5280)."),
                   _out("pem", "The same as PEM.", Kind.TEXT))),
    Method("key.encrypt", "Encrypt with an AES key, or to an RSA key (OAEP).", "Key", "key", (_KEY, _VERSION, _HASH), (_INPUT, _AAD),
           (_out("ciphertext", "openk ciphertext (docs/formats.md); for RSA the bare OAEP block."), _KEY_VERSION)),
    Method("key.decrypt", "Decrypt; the ciphertext says which version.", "Key", "key", (_KEY, _VERSION, _HASH),
           (Field("ciphertext", Kind.BYTES, "From key.encrypt."), _AAD),
           (_out("plaintext", "What was encrypted.", secret=True), _KEY_VERSION)),
    Method("key.reencrypt", "Under the newest version, without showing the plaintext.", "Key", "key", (_KEY,),
           (Field("ciphertext", Kind.BYTES, "From key.encrypt."), _AAD), (_out("ciphertext", "Under the newest version."), _KEY_VERSION)),
    Method("key.sign", "Sign.", "Key", "key", (_KEY, _VERSION, _HASH, _PADDING, _PREHASHED), (_MESSAGE,),
           (_out("signature", "ECDSA: DER (RFC 3279). Ed25519, RSA, ML-DSA: as their standard says."), _KEY_VERSION)),
    Method("key.verify", "Verify a signature; an invalid one is the error key.signature_invalid.", "Key", "key",
           (_KEY, _VERSION, _HASH, _PADDING, _PREHASHED),
           (_MESSAGE, Field("signature", Kind.BYTES, "From key.sign.", most=8192)), (_out("valid", "True.", Kind.FLAG), _KEY_VERSION)),
    Method("key.mac", "Compute an HMAC.", "Key", "key", (_KEY, _VERSION), (_INPUT,), (_out("mac", "The whole HMAC."), _KEY_VERSION)),
    Method("key.verify_mac", "Verify an HMAC; an invalid one is the error key.mac_invalid.", "Key", "key", (_KEY, _VERSION),
           (_INPUT, Field("mac", Kind.BYTES, "From key.mac.", most=64)), (_out("valid", "True.", Kind.FLAG), _KEY_VERSION)),
    Method("key.derive", "Derive bytes: SP 800-108 counter mode or HKDF-Expand (RFC 5869).", "Key", "key", (
        _KEY, _VERSION, Field("mode", Kind.TEXT, "sp800-108-counter (default) or hkdf-expand.", required=False, most=32, choices=("sp800-108-counter", "hkdf-expand")),
        Field("length", Kind.INTEGER, "Bytes wanted; 32 when left out.", required=False, most=4096)),
           (Field("label", Kind.BYTES, "SP 800-108: label. HKDF: not used.", required=False, most=1024),
            Field("context", Kind.BYTES, "SP 800-108: context. HKDF: info.", required=False, most=1024)),
           (_out("derived", "The bytes.", secret=True), _KEY_VERSION)),
    Method("key.wrap", "Wrap key bytes of yours.", "Key", "key", (_KEY, _VERSION), (Field("input", Kind.BYTES, "Key bytes.", secret=True, most=8192), _AAD),
           (_out("wrapped", "openk ciphertext of the kind `wrap`."), _KEY_VERSION)),
    Method("key.unwrap", "Unwrap key bytes.", "Key", "key", (_KEY,), (Field("wrapped", Kind.BYTES, "From key.wrap or key.data_key.", most=16384), _AAD),
           (_out("output", "Key bytes.", secret=True), _KEY_VERSION)),
    Method("key.data_key", "Make a data key: wrapped, and in plaintext unless asked not to.", "Key", "key", (
        _KEY, _VERSION, Field("length", Kind.INTEGER, "16 to 64 bytes; 32 when left out.", required=False, most=64),
        Field("wrapped_only", Kind.FLAG, "Leave the plaintext out.", required=False)), (_AAD,),
           (_out("wrapped", "For key.unwrap."), _out("plaintext", "The data key.", secret=True, required=False), _KEY_VERSION)),
    Method("key.agree", "Diffie-Hellman with another's public key, then HKDF or the raw secret.", "Key", "key", (_KEY, _VERSION),
           (Field("public", Kind.BYTES, "SubjectPublicKeyInfo DER, or the raw point.", most=1024),
            ), (_out("shared", "The shared secret (x coordinate, or X25519's output).", secret=True), _KEY_VERSION)),
    Method("key.encapsulate", "Make a shared secret for an ML-KEM key (FIPS 203).", "Key", "key", (_KEY, _VERSION), (),
           (_out("ciphertext", "For key.decapsulate."), _out("shared", "32 bytes.", secret=True), _KEY_VERSION)),
    Method("key.decapsulate", "Open a shared secret.", "Key", "key", (_KEY, _VERSION),
           (Field("ciphertext", Kind.BYTES, "From key.encapsulate.", most=2048),), (_out("shared", "32 bytes.", secret=True), _KEY_VERSION)),
    Method("key.rotate", "Add a version, used from now on; older ones still open.", "Key", "key", (_KEY,), result=_DESCRIPTION, changes=True),
    Method("random.bytes", "Random bytes from the HSM.", "System", None, (Field("length", Kind.INTEGER, "1 to 4096; 32 when left out.", required=False, most=4096),),
           result=(_out("bytes", "They.", secret=True),)),
    Method("secret.put", "Keep a secret as its next version.", "Secret", "secret", (
        _SECRET,
        Field("value", Kind.BYTES, "The value; or use `fields`.", required=False, secret=True),
        Field("fields", Kind.FIELDS, "A map of named values.", required=False, secret=True),
        Field("expected", Kind.INTEGER, "Fail unless this is the newest version (0: none yet).", required=False, most=1 << 31)),
           result=(_out("secret", "VAULT/NAME", Kind.TEXT), _out("version", "The new version.", Kind.INTEGER)), changes=True),
    Method("secret.get", "Read a secret.", "Secret", "secret", (_SECRET, Field("version", Kind.INTEGER, "The newest when left out.", required=False, most=1 << 31)),
           result=(_out("value", "The value, if put as one.", secret=True, required=False),
                   _out("fields", "The field map, if put as one.", Kind.FIELDS, secret=True, required=False),
                   _out("version", "Which version this is.", Kind.INTEGER), _out("created", "RFC 3339.", Kind.TEXT))),
    Method("secret.list", "List the secrets of a vault.", "Vault", "vault", (_VAULT, _AFTER, _LIMIT),
           result=(_out("secrets", "Each: secret, version, created.", Kind.LIST),)),
    Method("secret.delete", "Delete a secret with all versions, or one version.", "Secret", "secret",
           (_SECRET, Field("version", Kind.INTEGER, "Only this version.", required=False, most=1 << 31)),
           result=(_out("secret", "VAULT/NAME", Kind.TEXT), _out("deleted", "Versions deleted.", Kind.INTEGER)), changes=True),
    Method("hsm.list", "List the HSMs that are configured.", "System", None,
           result=(_out("hsms", "Each: hsm, group (of which it is a member, or nil), state, workers (connected), configured (workers), backend, label, model, serial, firmware "
                                "(nil where no worker has connected yet).", Kind.LIST),)),
    Method("hsm.info", "What the token is and what it can do, as it answered to probes.", "System", None, (_HSM,),
           result=(_HSM_USED, _out("backend", "pkcs11, yubihsm or software.", Kind.TEXT), _out("label", "The token's label.", Kind.TEXT),
                   _out("model", "Its model.", Kind.TEXT), _out("serial", "Its serial number.", Kind.TEXT),
                   _out("firmware", "Its firmware's version.", Kind.TEXT),
                   _out("identity", "Hex: what stores are bound to; another token, or other root keys, have another.", Kind.TEXT),
                   _out("chosen", "What was negotiated with it, by purpose.", Kind.MAP),
                   _out("mechanisms", "What it really does.", Kind.TEXTS), _out("missing", "What openk could use, and it lacks.", Kind.TEXTS),
                   _out("keys", "Each: algorithm, purpose, resident, wrapped, cached: which protections are possible.", Kind.LIST))),
    Method("hsm.status", "How the HSMs are, and what to do about it.", "System", None,
           (Field("hsm", Kind.TEXT, "Only this one.", required=False, most=32),),
           result=(_out("hsms", "Each: hsm, group, state (starting, up, restarting, down, latched, diverged, sealed), workers, configured, queued, in_flight; "
                                "since the start: restarts, replayed, quarantined, timed_out, busy, rejected, trips (of the breaker); "
                                "breaker (open: requests are refused at once), latched (a wrong PIN is not tried again), "
                                "retry_after (milliseconds, or nil), advice.", Kind.LIST),)),
    Method("hsm.objects", "The token's objects, each matched to what openk knows: what nobody knows, and what is missing.", "System", None, (_HSM,),
           result=(_HSM_USED,
                   _out("objects", "Each: state (ok, unknown, missing, doubled), role (root, audit, vault, key, login, unfinished, none), name, version, "
                                   "label, id (hex), kind, algorithm.", Kind.LIST),
                   _out("unknown", "Objects that openk did not make.", Kind.INTEGER), _out("missing", "Objects that should be there.", Kind.INTEGER),
                   _out("doubled", "Objects that are there twice.", Kind.INTEGER),
                   _out("keys", "Keys that were looked at.", Kind.INTEGER),
                   _out("complete", "False: there are more keys than one request looks at, so some objects have no name here.", Kind.FLAG))),
    Method("hsm.selftest", "Known-answer tests through the daemon, the worker and the HSM; nothing stays on the token.", "System", None,
           (_HSM, Field("check", Kind.TEXT, "Only this one.", required=False, most=16, choices=HSM_CHECKS)),
           result=(_HSM_USED, _out("passed", "No check failed.", Kind.FLAG),
                   _out("checks", "Each: check, outcome (ok, failed, unsupported), text, microseconds.", Kind.LIST))),
    Method("hsm.attest", "The certificates by which the device vouches for a resident key.", "Key", "key", (_KEY, _VERSION),
           result=(_out("key", "VAULT/NAME", Kind.TEXT), _KEY_VERSION, _HSM_USED,
                   _out("pem", "Certificates (RFC 7468): the key's own first, then those of the device.", Kind.TEXT))),
    Method("hsm.bench", "Measure one operation, one at a time, for a short while: other clients are served in between.", "System", None,
           (_HSM, Field("operation", Kind.TEXT, "What to measure.", most=16, choices=HSM_OPERATIONS),
            Field("count", Kind.INTEGER, "At most so many operations; 200 when left out.", required=False, most=1000),
            Field("milliseconds", Kind.INTEGER, "At most so long; 200 when left out.", required=False, most=1000)),
           result=(_HSM_USED, _out("operation", "What was measured.", Kind.TEXT),
                   _out("per_second", "Operations a second.", Kind.INTEGER), _out("p50", "Microseconds.", Kind.INTEGER),
                   _out("p99", "Microseconds.", Kind.INTEGER), _out("times", "Microseconds of each operation, in order.", Kind.INTEGERS))),
    Method("policy.explain", "Who may do what, why, and what would change the answer.", "System", None, (
        Field("action", Kind.TEXT, "A method name.", most=64),
        Field("resource", Kind.TEXT, "VAULT, VAULT/NAME, or nothing for the system.", required=False, most=NAME_MOST),
        Field("uid", Kind.INTEGER, "Ask for another user than yourself.", required=False, most=1 << 32),
        Field("unit", Kind.TEXT, "Ask for a systemd unit.", required=False, most=256)),
           result=(_out("allowed", "The answer.", Kind.FLAG), _out("policies", "The policies that decided.", Kind.TEXTS),
                   _out("errors", "Errors while deciding (each is a denial).", Kind.TEXTS),
                   _out("flips", "Single-fact changes that would flip the answer.", Kind.TEXTS), _out("facts", "What was known.", Kind.MAP))),
    Method("policy.reload", "Load the policy files again, all or nothing.", "System", None,
           result=(_out("epoch", "Grows with each reload.", Kind.INTEGER), _out("policies", "How many.", Kind.INTEGER))),
    Method("backup.create", "Make a backup now, or join the one that is being made; with `wait`, until it is there.", "System", None,
           (Field("wait", Kind.INTEGER, "Seconds to wait for it; 10 when left out.", required=False, most=60),),
           result=(_out("run", "The number of the run, since the start.", Kind.INTEGER), _out("state", "made, or running: ask backup.list how far it is.", Kind.TEXT),
                   _out("backup", "Its name.", Kind.TEXT, required=False), _out("made", "RFC 3339: what was acknowledged before is in it.", Kind.TEXT, required=False),
                   _out("entries", "Audit entries in it.", Kind.INTEGER, required=False), _out("signed", "Those of them under the signed head in it.", Kind.INTEGER, required=False),
                   _out("bytes", "Size of its store.", Kind.INTEGER, required=False), _out("seconds", "What it took.", Kind.INTEGER, required=False))),
    Method("backup.list", "The backups that are kept, the one that is being made, and what became of the last.", "System", None,
           result=(_out("backups", "Each: backup, made (RFC 3339), entries, signed, bytes; the oldest first.", Kind.LIST),
                   _out("next", "RFC 3339: when the next is due.", Kind.TEXT),
                   _out("running", "run, step (waiting, copying, verifying), percent (of the copying); nil while none is made.", Kind.MAP, required=False),
                   _out("last", "Of the last since the start: run, ended (RFC 3339), backup (nil: it failed), reason (folder, busy, space, damaged, unsigned, disk, stopped, internal), text.",
                        Kind.MAP, required=False))),
    Method("audit.head", "The signed checkpoint of the audit log (C2SP tlog-checkpoint).", "System", None,
           result=(_out("checkpoint", "The text.", Kind.TEXT), _out("signed_size", "Entries under the signature.", Kind.INTEGER),
                   _out("size", "Entries now.", Kind.INTEGER), _out("public", "The audit key, SubjectPublicKeyInfo DER."),
                   _out("algorithm", "What the audit key is: ed25519, p-256 or rsa-3072.", Kind.TEXT),
                   _out("verifier_key", "The same key as C2SP tools take it (vkey).", Kind.TEXT))),
    Method("audit.prove", "Prove that an entry is in the log, or that the log only grew.", "System", None,
           (Field("index", Kind.INTEGER, "The entry, from 0.", most=1 << 62), Field("old_size", Kind.INTEGER, "Prove consistency with this size instead.", required=False, most=1 << 62)),
           result=(_out("index", "The entry.", Kind.INTEGER), _out("size", "Size of the proved tree.", Kind.INTEGER),
                   _out("hashes", "The path, RFC 6962, as lower-case hex.", Kind.TEXTS), _out("checkpoint", "The signed head.", Kind.TEXT))),
    Method("audit.tail", "Read audit entries.", "System", None,
           (Field("first", Kind.INTEGER, "From this index; the newest ones when left out.", required=False, most=1 << 62), _LIMIT),
           result=(_out("entries", "Each: index, entry (JSON text).", Kind.LIST),)),
)  # fmt: skip

METHODS: Final[dict[str, Method]] = {method.name: method for method in _TABLE}
