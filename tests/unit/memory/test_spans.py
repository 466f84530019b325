from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from openk_memory.spans import Spans

PAGES = 24


class SpansMachine(RuleBasedStateMachine):
    """Against a model that knows each page."""

    def __init__(self) -> None:
        super().__init__()
        self.spans = Spans(PAGES)
        self.taken: dict[int, int] = {}

    def used(self) -> set[int]:
        return {page for first, count in self.taken.items() for page in range(first, first + count)}

    @rule(count=st.integers(1, PAGES + 2))
    def take(self, count: int) -> None:
        used = self.used()
        fits = any(not used & set(range(at, at + count)) for at in range(PAGES - count + 1))
        foreseen = self.spans.find(count)
        first = self.spans.take(count)
        assert first == foreseen
        if first is None:
            assert not fits
            return
        assert not used & set(range(first, first + count))
        assert 0 <= first <= PAGES - count
        self.taken[first] = count

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        first = data.draw(st.sampled_from(sorted(self.taken)))
        self.spans.give(first, self.taken.pop(first))

    @invariant()
    def frontier_covers_what_is_taken(self) -> None:
        assert all(page < self.spans.frontier for page in self.used())


TestSpans = SpansMachine.TestCase
