"""hsm.*"""

from __future__ import annotations

from openk.answers import Reply
from openk.operation import Operation, operate
from openk.results import (
    Hsm,
    HsmAttestation,
    HsmBench,
    HsmCheck,
    HsmInfo,
    HsmKey,
    HsmObject,
    HsmObjects,
    HsmSelftest,
    HsmStatus,
)


def list_hsms() -> Operation[list[Hsm]]:
    """The HSMs that are configured."""
    return operate("hsm.list", lambda reply: [_hsm(row) for row in reply.replies("hsms")])


def info(hsm: str | None = None) -> Operation[HsmInfo]:
    """What the token is and what it can do. `hsm`: which one, where there are several."""
    return operate("hsm.info", _info, hsm=hsm)


def status(hsm: str | None = None) -> Operation[list[HsmStatus]]:
    """How the HSMs are, and what to do about it; all of them when left out."""
    return operate("hsm.status", lambda reply: [_status(row) for row in reply.replies("hsms")], hsm=hsm)


def objects(hsm: str | None = None) -> Operation[HsmObjects]:
    """The token's objects, each matched to what openk knows."""
    return operate("hsm.objects", _objects, hsm=hsm)


def selftest(hsm: str | None = None, *, check: str | None = None) -> Operation[HsmSelftest]:
    """Known-answer tests through daemon, worker and HSM; one of them with `check`. A failed check is no error:
    look at `passed`."""
    return operate("hsm.selftest", _selftest, hsm=hsm, check=check)


def attest(key: str, *, version: int | None = None) -> Operation[HsmAttestation]:
    """The certificates by which the device vouches for a resident key."""
    return operate(
        "hsm.attest",
        lambda reply: HsmAttestation(reply.text("key"), reply.integer("version"), reply.text("hsm"), reply.text("pem")),
        key=key,
        version=version,
    )


def bench(
    operation: str, *, hsm: str | None = None, count: int | None = None, milliseconds: int | None = None
) -> Operation[HsmBench]:
    """Measure one operation, one at a time, until `count` or `milliseconds` are used up."""
    return operate("hsm.bench", _bench, operation=operation, hsm=hsm, count=count, milliseconds=milliseconds)


def _hsm(row: Reply) -> Hsm:
    return Hsm(
        row.text("hsm"),
        row.optional_text("group"),
        row.text("state"),
        row.integer("workers"),
        row.integer("configured"),
        row.optional_text("backend"),
        row.optional_text("label"),
        row.optional_text("model"),
        row.optional_text("serial"),
        row.optional_text("firmware"),
    )


def _info(reply: Reply) -> HsmInfo:
    keys = [_key(row) for row in reply.replies("keys")]
    return HsmInfo(
        reply.text("hsm"),
        reply.text("backend"),
        reply.text("label"),
        reply.text("model"),
        reply.text("serial"),
        reply.text("firmware"),
        reply.text("identity"),
        reply.map("chosen"),
        reply.texts("mechanisms"),
        reply.texts("missing"),
        keys,
    )


def _key(row: Reply) -> HsmKey:
    able = row.flag("resident"), row.flag("wrapped"), row.flag("cached")
    return HsmKey(row.text("algorithm"), row.text("purpose"), *able)


def _status(row: Reply) -> HsmStatus:
    return HsmStatus(
        row.text("hsm"),
        row.optional_text("group"),
        row.text("state"),
        row.integer("workers"),
        row.integer("configured"),
        row.integer("queued"),
        row.integer("in_flight"),
        row.integer("restarts"),
        row.integer("replayed"),
        row.integer("quarantined"),
        row.integer("timed_out"),
        row.integer("busy"),
        row.integer("rejected"),
        row.integer("trips"),
        row.flag("breaker"),
        row.flag("latched"),
        row.optional_integer("retry_after"),
        row.text("advice"),
    )


def _objects(reply: Reply) -> HsmObjects:
    rows = [
        HsmObject(
            row.text("state"),
            row.text("role"),
            row.optional_text("name"),
            row.optional_integer("version"),
            row.text("label"),
            row.text("id"),
            row.text("kind"),
            row.text("algorithm"),
        )
        for row in reply.replies("objects")
    ]
    return HsmObjects(
        reply.text("hsm"),
        rows,
        reply.integer("unknown"),
        reply.integer("missing"),
        reply.integer("doubled"),
        reply.integer("keys"),
        reply.flag("complete"),
    )


def _selftest(reply: Reply) -> HsmSelftest:
    checks = [
        HsmCheck(row.text("check"), row.text("outcome"), row.text("text"), row.integer("microseconds"))
        for row in reply.replies("checks")
    ]
    return HsmSelftest(reply.text("hsm"), reply.flag("passed"), checks)


def _bench(reply: Reply) -> HsmBench:
    return HsmBench(
        reply.text("hsm"),
        reply.text("operation"),
        reply.integer("per_second"),
        reply.integer("p50"),
        reply.integer("p99"),
        reply.integers("times"),
    )
