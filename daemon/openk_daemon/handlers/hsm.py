"""hsm.*: what an operator asks of the devices. Only `hsm.list` and `hsm.status` answer when an HSM does not."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from openk.wire.codes import CODES
from openk.wire.methods import HSM_CHECKS
from openk_daemon.call import Call, Handler, Outcome, Plain
from openk_daemon.hierarchy.refusals import refusing
from openk_daemon.hsms import Device, root_of
from openk_daemon.keys.census import Census, Row, State
from openk_daemon.keys.keyring import Keyring
from openk_daemon.keys.suites import SUITES
from openk_daemon.refusal import Refusal
from openk_hsm import matrix, stopwatch
from openk_hsm.errors import HsmError, Unsupported
from openk_hsm.lane_health import LaneHealth, LaneState
from openk_hsm.seam import KeyHandle, KeySpec, Lane, Resident, TokenInfo, Wrapped
from openk_hsm.selftest import SHARED, Finding, Selftest, Verdict
from openk_hsm.specs import OPCODES
from openk_hsm.stopwatch import Stopwatch

Report = Callable[[str, Finding], None]
"""The HSM's name and what was found."""

COUNT_USUAL: Final = 200
MILLISECONDS_USUAL: Final = 200

_ADVICE: Final = {
    LaneState.STARTING: "No worker has connected yet. If this lasts: does it run, and what does its log say? "
    "(`systemctl status 'openk-hsm@*'`)",
    LaneState.RESTARTING: "The worker died and is started again; requests wait. If this lasts, its log says why "
    "(`journalctl -u 'openk-hsm@*'`).",
    LaneState.DOWN: "Requests are refused at once. Device, cable, network, the vendor's daemon; then the worker's log "
    "(`journalctl -u 'openk-hsm@*'`). It comes back by itself.",
    LaneState.LATCHED: CODES["hsm.pin"].advice,
    LaneState.DIVERGED: "Its root keys are not those of its group, so it is not used: restored from an old backup, or "
    "set up on its own? Give it the group's root keys, or take it out of the group.",
    LaneState.SEALED: "Its workers are logged out. An operator unseals openk with `openk unseal`.",
}
_REFUSED: Final = frozenset({LaneState.DOWN, LaneState.LATCHED, LaneState.DIVERGED, LaneState.SEALED})
_SETTLED: Final = frozenset({LaneState.LATCHED, LaneState.DIVERGED, LaneState.SEALED})
"""Whoever reads of these states knows why, whatever the last worker said."""


class HsmHandlers:
    def __init__(self, devices: Sequence[Device], keyring: Keyring, report: Report) -> None:
        """`devices`: the first is the one that is meant where none is named. `report`: for the log, each check that
        failed."""
        self._devices = {device.name: device for device in devices}
        self._first = devices[0]
        self._keyring = keyring
        self._hierarchy = keyring.hierarchy
        self._pool = keyring.pool
        self._census = Census(keyring.hierarchy)
        self._report = report

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "hsm.list": refusing(self.list_hsms),
            "hsm.info": refusing(self.info),
            "hsm.status": refusing(self.status),
            "hsm.objects": refusing(self.objects),
            "hsm.selftest": refusing(self.selftest),
            "hsm.attest": refusing(self.attest),
            "hsm.bench": refusing(self.bench),
        }

    async def list_hsms(self, _call: Call) -> Outcome:
        rows = [_row(device) for device in self._devices.values()]
        return Outcome(({"hsms": rows},), facts=(("hsms", len(rows)),))

    async def info(self, call: Call) -> Outcome:
        device = self._chosen(call)
        token = await device.lane.info()
        keys: list[Plain] = [
            {
                "algorithm": spec.algorithm.value,
                "purpose": spec.purpose.value,
                "resident": spec in token.resident,
                "wrapped": spec in token.wrapped,
                "cached": SUITES[spec.algorithm].material > 0,
            }
            for spec in matrix.specs()
        ]
        answer: dict[str, Plain] = {
            "hsm": device.name,
            **_token(token),
            "identity": token.identity.hex(),
            "chosen": dict(token.chosen),
            "mechanisms": list(token.mechanisms),
            "missing": sorted({mechanism.name for mechanism in OPCODES} - set(token.mechanisms)),
            "keys": keys,
        }
        return Outcome((answer,), facts=(("hsm", device.name),))

    async def status(self, call: Call) -> Outcome:
        asked = call.arguments.optional_text("hsm")
        devices = [*self._devices.values()] if asked is None else [self._chosen(call)]
        rows = [_health(device) for device in devices]
        return Outcome(({"hsms": rows},), facts=() if asked is None else (("hsm", asked),))

    async def objects(self, call: Call) -> Outcome:
        device = self._token_of(self._chosen(call))
        report = await self._census.take(device.recorded, device.lane, residents=device.residents)
        counts = Counter(row.state for row in report.rows)
        answer: dict[str, Plain] = {
            "hsm": device.name,
            "objects": [_object(row) for row in report.rows],
            "unknown": counts[State.UNKNOWN],
            "missing": counts[State.MISSING],
            "doubled": counts[State.DOUBLED],
            "keys": report.keys,
            "complete": report.complete,
        }
        told = tuple((state.value, counts[state]) for state in State)
        return Outcome((answer,), facts=(("hsm", device.name), *told))

    async def selftest(self, call: Call) -> Outcome:
        device = self._chosen(call)
        asked = call.arguments.optional_text("check")
        token = await device.lane.info()
        with self._pool.lease(SHARED, call.peer.owner) as lease:
            test = Selftest(
                device.lane, token, root_of(device.recorded), self._handles(device), lease.view, call.peer.connection
            )
            findings = [await test.run(name) for name in (HSM_CHECKS if asked is None else (asked,))]
        for finding in findings:
            if finding.verdict is Verdict.FAILED:
                self._report(device.name, finding)
        failed = sum(finding.verdict is Verdict.FAILED for finding in findings)
        answer: dict[str, Plain] = {
            "hsm": device.name,
            "passed": not failed,
            "checks": [_finding(finding) for finding in findings],
        }
        return Outcome((answer,), facts=(("hsm", device.name), ("checks", len(findings)), ("failed", failed)))

    async def attest(self, call: Call) -> Outcome:
        state, version = await self._keyring.select(call.arguments)
        handle = version.handle
        if handle is None or not isinstance(handle.source, Resident):
            raise Refusal(
                "key.unsupported",
                f"{state.name} is {state.protection.value}: an HSM vouches for keys that live on it (resident) only",
                details={"protection": state.protection.value},
            )
        hsms = self._hierarchy.hsms
        name = hsms.shown(state.vault.hsm)
        try:
            chain = await hsms.of(state.vault.hsm).attest(handle.source.label, handle.source.id)
        except Unsupported as error:
            raise Refusal(
                "key.unsupported", f"the HSM {name} does not vouch for {state.algorithm.value} keys"
            ) from error
        answer: dict[str, Plain] = {
            "key": state.name,
            "version": version.number,
            "hsm": name,
            "pem": "".join(_pem(certificate) for certificate in chain),
        }
        return Outcome((answer,), facts=(*version.facts, ("certificates", len(chain))))

    async def bench(self, call: Call) -> Outcome:
        device, arguments = self._chosen(call), call.arguments
        operation = arguments.text("operation")
        count = max(1, arguments.integer("count", COUNT_USUAL))
        seconds = arguments.integer("milliseconds", MILLISECONDS_USUAL) / 1000
        token = await device.lane.info()
        with self._pool.lease(stopwatch.ROOM, call.peer.owner) as lease:
            watch = Stopwatch(
                device.lane, token, root_of(device.recorded), self._handles(device), lease.view, call.peer.connection
            )
            try:
                measured = await watch.measure(operation, count, seconds)
            except Unsupported as error:
                raise Refusal(
                    "key.unsupported",
                    f"{operation} is not measured on this HSM: it cannot do that, or only with a key that would stay",
                ) from error
        answer: dict[str, Plain] = {
            "hsm": device.name,
            "operation": operation,
            "per_second": round(measured.per_second),
            "p50": measured.percentile(0.5) // 1000,
            "p99": measured.percentile(0.99) // 1000,
            "times": [time // 1000 for time in measured.times],
        }
        told = (("operation", operation), ("count", len(measured.times)))
        return Outcome((answer,), facts=(("hsm", device.name), *told))

    # --- their parts ---

    def _chosen(self, call: Call) -> Device:
        """The HSM that was asked for. Raises Refusal(request.invalid)."""
        asked = call.arguments.optional_text("hsm")
        if asked is None:
            return self._first
        device = self._devices.get(asked)
        if device is None:
            near = get_close_matches(asked, self._devices, 1)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(self._devices)}"
            raise Refusal("request.invalid", f"no HSM is named {asked!r}: {hint}")
        return device

    def _token_of(self, device: Device) -> Device:
        """One with a token of its own: of a group its first member, where the group's token objects are."""
        return next((member for member in self._devices.values() if member.group == device.name), device)

    def _handles(self, device: Device) -> stopwatch.Handle:
        def handle(spec: KeySpec, source: Wrapped) -> KeyHandle:
            return self._hierarchy.handle(spec, source, device.recorded)

        return handle


def _row(device: Device) -> dict[str, Plain]:
    health = device.lane.health()
    row: dict[str, Plain] = {
        "hsm": device.name,
        "group": device.group,
        "state": health.state.value,
        "workers": health.workers,
        "configured": device.configured,
    }
    token = _known(device.lane)
    shown = ("backend", "label", "model", "serial", "firmware")
    return row | (dict.fromkeys(shown) if token is None else _token(token))


def _health(device: Device) -> dict[str, Plain]:
    health = device.lane.health()
    wait = health.retry_after
    return {
        "hsm": device.name,
        "group": device.group,
        "state": health.state.value,
        "workers": health.workers,
        "configured": device.configured,
        "queued": health.queued,
        "in_flight": health.in_flight,
        "restarts": health.restarts,
        "replayed": health.replayed,
        "quarantined": health.quarantined,
        "timed_out": health.timed_out,
        "busy": health.busy,
        "rejected": health.rejected,
        "trips": health.trips,
        "breaker": health.state in _REFUSED,
        "latched": health.state is LaneState.LATCHED,
        "retry_after": None if wait is None else round(1000 * wait),
        "advice": _advice(health, device.configured),
    }


def _known(lane: Lane) -> TokenInfo | None:
    """The token, where a worker has told of it: nobody waits for one."""
    pending = lane.info()
    if not pending.settled:
        return None
    try:
        return pending.result()
    except HsmError:
        return None


def _token(token: TokenInfo) -> dict[str, Plain]:
    return {
        "backend": token.backend,
        "label": token.label,
        "model": token.model,
        "serial": token.serial,
        "firmware": token.firmware,
    }


def _advice(health: LaneHealth, configured: int) -> str:
    if health.state is LaneState.UP:
        missing = configured - health.workers
        return f"{missing} of {configured} workers are missing: their logs say why." if missing > 0 else ""
    if health.refusal in CODES and health.state not in _SETTLED:
        refused = CODES[health.refusal]
        return f"{refused.meaning} {refused.advice}"
    return _ADVICE[health.state]


def _object(row: Row) -> dict[str, Plain]:
    owner, found = row.owner, row.object
    return {
        "state": row.state.value,
        "role": owner.role.value,
        "name": owner.name,
        "version": owner.version,
        "label": found.label,
        "id": found.id.hex(),
        "kind": found.kind,
        "algorithm": owner.algorithm or str(found.algorithm),
    }


def _finding(finding: Finding) -> dict[str, Plain]:
    return {
        "check": finding.check,
        "outcome": finding.verdict.value,
        "text": finding.text,
        "microseconds": round(1e6 * finding.seconds),
    }


def _pem(certificate: bytes) -> str:
    """RFC 7468, section 5."""
    text = base64.b64encode(certificate).decode("ascii")
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"
