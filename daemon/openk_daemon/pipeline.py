"""The life of one request, on one page:

    request → rate limit → policy decision → handler → durable audit record, with the handler's writes → results

Whatever goes wrong becomes one Refusal, here and nowhere else, and that too is recorded before it is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from time import monotonic

from openk.wire.codes import CODES
from openk_daemon.account import Marks, code_of, facts_of, record, record_refusal
from openk_daemon.audit.seam import AuditDamaged, AuditUnavailable, EntryTooLarge, Ledger, UnknownEntry
from openk_daemon.call import Answer, Arguments, Call, Outcome, release
from openk_daemon.hierarchy.refusals import refuse
from openk_daemon.identity.caller import Peer
from openk_daemon.intake import Prepared
from openk_daemon.observe.log import Category, Log
from openk_daemon.observe.metrics import SAMPLED
from openk_daemon.policy.decision import Policy, Resource
from openk_daemon.rates import admit
from openk_daemon.refusal import Refusal, let_go
from openk_daemon.store.seam import StoreError
from openk_hsm.pending import Pending
from openk_hsm.stages import SETTLING

Results = Sequence[Answer | Refusal]
Describe = Callable[[str], Coroutine[Pending[object], None, tuple[tuple[str, str], ...]]]

_OURS = frozenset({"hsm", "store", "audit", "internal", "daemon"})
"""Refusals that tell an operator something: what lies behind them goes to the log."""
_CRYPTOGRAPHIC = ("key.", "random.")
"""Methods whose debug lines are of the category crypto."""
_ADMITTING = (AuditUnavailable, AuditDamaged)


def _nobody(*_moments: float) -> None:
    """The default: nobody wants to know."""


class Pipeline:
    """Answers checked requests. Its coroutines await only Pendings and raise nothing."""

    def __init__(self, policy: Policy, ledger: Ledger, describe: Describe, log: Log) -> None:
        """`describe`: a key's facts for policies, by name."""
        self._policy = policy
        self._ledger = ledger
        self._describe = describe
        self._log = log
        self._crypto = log.child(Category.CRYPTO)
        self.slow_seconds = 0.0
        """What takes longer is told of; 0.0: nothing is."""
        self.staged: Callable[[float, float, float, float, float], None] = _nobody
        """Told where the time of one request in SAMPLED went (`Metrics.staged`)."""
        self._turn = 0

    async def answer(
        self,
        prepared: Prepared,
        arguments: Arguments,
        items: Sequence[Arguments],
        batch: bool,  # noqa: FBT001 - hot: positional
        peer: Peer,
        request: str,
        began: float = 0.0,
    ) -> Results | Refusal:
        """The results, one for each item, or the refusal of all; either way recorded. `began`: monotonic seconds."""
        decided = 0.0
        try:
            if prepared.buckets:
                admit(prepared.buckets, len(items))
            resource = prepared.resource or Resource("Key", prepared.name, await self._describe(prepared.name))
            self._decide(prepared, resource, peer)
            decided = monotonic()
            outcome = await prepared.handler(Call(prepared.method, arguments, items, batch, resource, peer, request))
        except Refusal as refusal:
            marks = Marks(began, decided, SETTLING.sent, monotonic())
            answer = await self.refuse(prepared.fragment, refusal, request)
            if self._is_slow(began, ended := monotonic()):
                self._account(prepared, request, marks, ended, refusal.code.name, slow=True)
            return answer
        except Exception as error:  # noqa: BLE001 - a mistake of ours: the client hears "internal", the log everything
            self._log.error("request.failed", error, **facts_of(prepared.fragment, request))
            let_go(error)
            return await self.refuse(prepared.fragment, Refusal("internal"), request)
        handled, sent = monotonic(), SETTLING.sent
        for result in outcome.results:
            if isinstance(result, Refusal):
                self._note(result, prepared.fragment, request)
        try:
            await self._ledger.commit(record(prepared.fragment, request, outcome, batch), outcome.writes)
        except Exception as error:  # noqa: BLE001 - judged in _uncommitted
            return await self._uncommitted(prepared.fragment, outcome, error, request)
        for step in outcome.after:
            try:
                step.apply()
            except Exception as error:  # noqa: BLE001 - it is durable: the client must hear so, and the other steps be taken
                self._log.error("request.unapplied", error, **facts_of(prepared.fragment, request))
        self._turn += 1
        if not self._turn % SAMPLED and began:
            self.staged(began, decided, sent, handled, monotonic())
        slow = self._is_slow(began, ended := monotonic())
        if slow or self._log.debugging or self._crypto.debugging:
            marks = Marks(began, decided, sent, handled)
            self._account(prepared, request, marks, ended, code_of(outcome.results), slow=slow)
        return outcome.results

    async def refuse(self, fragment: str, refusal: Refusal, request: str) -> Refusal:
        """Record a refusal. Where even that cannot be recorded, the refusal is audit.unavailable."""
        self._note(refusal, fragment, request)
        try:
            await self._ledger.commit(record_refusal(fragment, request, refusal.code.name))
        except Exception as error:  # noqa: BLE001 - whatever stops the log stops the daemon from admitting
            if refusal.code.name != "audit.unavailable":
                self._log.error("audit.unavailable", error, **facts_of(fragment, request))
            return Refusal("audit.unavailable", retry_after=1.0)
        if self._log.debugging:
            self._log.debug("request.refused", code=refusal.code.name, **facts_of(fragment, request))
        return refusal

    def _note(self, refusal: Refusal, fragment: str, request: str) -> None:
        """Log what lies behind a refusal, once, and let it go: its frames hold views of the request."""
        if refusal.__cause__ is not None and refusal.code.name.partition(".")[0] in _OURS:
            self._log.warning("request.refused", refusal, code=refusal.code.name, **facts_of(fragment, request))
        let_go(refusal)
        refusal.__cause__ = refusal.__context__ = None

    def _is_slow(self, began: float, ended: float) -> bool:
        return 0.0 < self.slow_seconds < ended - began and began > 0.0

    def _account(self, prepared: Prepared, request: str, marks: Marks, ended: float, code: str, *, slow: bool) -> None:
        """Tell of a request that has ended, and where its time went: of a slow one always, of the others at debug."""
        log = self._crypto if prepared.method.name.startswith(_CRYPTOGRAPHIC) else self._log
        if not slow and not log.debugging:
            return
        facts = {"code": code, "seconds": round(ended - marks.began, 6), **marks.stages(ended)}
        facts |= facts_of(prepared.fragment, request)
        if slow:
            self._log.warning("request.slow", None, **facts)
        else:
            log.debug("request.done", **facts)

    def _decide(self, prepared: Prepared, resource: Resource, peer: Peer) -> None:
        """Raises Refusal policy.denied, unless a policy allows and none errs (invariant 4)."""
        decision = self._policy.decide(peer.caller, prepared.method.name, resource)
        if decision.allowed:
            return
        for error in decision.errors:
            self._log.warning("policy.error", method=prepared.method.name, text=error)
        subject = prepared.name or "the system"
        why = f"forbidden by {', '.join(decision.policies)}" if decision.policies else "no policy allows it"
        raise Refusal(
            "policy.denied",
            f"{prepared.method.name} on {subject}: {why}",
            details={"policies": list(decision.policies)},
        )

    async def _uncommitted(self, fragment: str, outcome: Outcome, error: Exception, request: str) -> Refusal:
        """Nothing was written: take back what the handler prepared, and record that the request failed."""
        for step in outcome.after:
            if step.forget is not None:
                try:
                    step.forget()
                except Exception as mistake:  # noqa: BLE001 - the rest has to be taken back all the same
                    self._log.error("request.unforgotten", mistake, **facts_of(fragment, request))
        for result in outcome.results:
            if not isinstance(result, Refusal):
                release(result)
        if isinstance(error, StoreError):
            refusal = refuse(error)
        elif isinstance(error, EntryTooLarge | UnknownEntry | AuditUnavailable | AuditDamaged):
            refusal = Refusal(error.code, retry_after=1.0 if CODES[error.code].retry else None)
        else:
            refusal = Refusal("internal")
        self._log.error("request.uncommitted", error, **facts_of(fragment, request))
        let_go(error)
        return refusal if isinstance(error, _ADMITTING) else await self.refuse(fragment, refusal, request)
