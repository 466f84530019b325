"""The lane's seal, whatever order things happen in."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from openk_hsm.errors import HsmError, Sealed, WrongPin
from openk_hsm.frames import Intent
from openk_hsm.lane_seal import WITHIN, LaneSeal
from openk_hsm.pending import Pending
from openk_hsm.seam import TokenInfo

PATHS = ("one", "two")
INFO = TokenInfo("software", "l", "s", "m", "f", b"i", frozenset(), frozenset(), (), b"a")


class Model(RuleBasedStateMachine):
    """`asked`: who waits to hear of a login. `out`: workers that said that they are logged out."""

    @initialize(sealed=st.booleans())
    def begin(self, sealed: bool) -> None:
        self.seal = LaneSeal(sealed=sealed)
        self.asked: list[Pending[TokenInfo]] = []
        self.out: set[str] = set()
        self.now = 100.0

    @rule()
    def close(self) -> None:
        self.seal.close()
        self.settled(failed=True)
        assert self.seal.intent is Intent.SEAL

    @precondition(lambda self: not self.seal.open)
    @rule()
    def ask(self) -> None:
        self.asked.append(self.seal.ask(self.now))
        assert self.seal.intent is Intent.UNSEAL

    @precondition(lambda self: not self.seal.open)
    @rule(path=st.sampled_from(PATHS))
    def says_it_is_sealed(self, path: str) -> None:
        assert not self.seal.refuse(Sealed("sealed"), path)
        self.out.add(path)

    @precondition(lambda self: not self.seal.open)
    @rule(path=st.sampled_from(PATHS))
    def refuses(self, path: str) -> None:
        why = WrongPin("wrong")
        if self.seal.refuse(why, path):
            assert self.asked
            self.seal.close(why)
            self.settled(failed=True)

    @precondition(lambda self: self.seal.intent is Intent.UNSEAL)
    @rule()
    def logs_in(self) -> None:
        self.seal.answer(INFO)
        self.settled(failed=False)

    @precondition(lambda self: self.seal.intent is Intent.UNSEAL and not self.asked)
    @rule()
    def admit(self) -> None:
        self.seal.admit()
        self.out.clear()
        assert self.seal.open

    @rule(seconds=st.floats(0, 2 * WITHIN))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        late = self.seal.overdue(self.now)
        if late is not None:
            assert self.asked
            self.seal.close(late)
            self.settled(failed=True)

    def settled(self, *, failed: bool) -> None:
        for pending in self.asked:
            assert pending.settled
            try:
                assert pending.result() is INFO
                assert not failed
            except HsmError:
                assert failed
        self.asked.clear()

    @invariant()
    def nobody_is_greeted_to_log_in_who_did_not_log_out(self) -> None:
        if not hasattr(self, "seal"):
            return
        assert self.seal.logged_out == self.out
        for path in PATHS:
            greeting = self.seal.greeting(path)
            assert greeting is not Intent.UNSEAL or path in self.out
            assert (greeting is Intent.OPEN) == self.seal.open
        assert not any(pending.settled for pending in self.asked)


TestLaneSeal = Model.TestCase
