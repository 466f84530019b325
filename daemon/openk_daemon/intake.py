"""From a frame to a checked request: which method, which arguments, what it acts on, how the audit log names it.

One `Intake` a connection.  Clients send the same kind of request again and again, so what a frame's shape settles
(everything but the payloads) is kept as a `Prepared` and used again: checking is done once a shape, not once a frame.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Final

from openk.wire.arguments import Checked, InvalidArguments, Template, check
from openk.wire.methods import METHODS, Method
from openk.wire.reader import Reader, Request
from openk_daemon.call import Handler
from openk_daemon.hierarchy.names import check_vault, split
from openk_daemon.identity.caller import Peer
from openk_daemon.policy.decision import Resource
from openk_daemon.rates import Bucket, Rates, admit
from openk_daemon.refusal import Refusal

SYSTEM: Final = Resource("System", "")
_KEPT: Final = 32
"""Prepared shapes kept before those that the reader forgot are dropped; the reader remembers 16."""

_QUOTED_MOST: Final = 64
"""Characters of an unknown method that are compared with the known ones: a name of 1 MiB would hold up everybody."""

Loaded = Callable[[str], tuple[tuple[str, str], ...] | None]


class Prepared:
    """What all frames of one shape share. `resource` is None where a key's facts must be looked up each time;
    `fragment` is how their audit records begin: JSON members without braces."""

    __slots__ = ("buckets", "fragment", "handler", "method", "name", "resource", "template")

    def __init__(
        self, method: Method, handler: Handler, name: str, resource: Resource | None, fragment: str,
        buckets: tuple[Bucket, ...] = (),
    ) -> None:  # fmt: skip
        self.method = method
        self.handler = handler
        self.name = name
        self.resource = resource
        self.fragment = fragment
        self.buckets = buckets
        self.template: Template | None = None


class Intake:
    """Not for threads. Keeps nothing of a frame but what `Reader.learn` may keep: public text."""

    __slots__ = ("_foreign", "_handlers", "_loaded", "_peer", "_prepared", "_rates", "_reader")

    def __init__(
        self, reader: Reader, peer: Peer, handlers: Mapping[str, Handler], loaded: Loaded, rates: Rates | None = None
    ) -> None:
        """`loaded`: the facts of a key by name where they are at hand, else None. Without `rates` there is no limit."""
        self._reader = reader
        self._peer = peer
        self._handlers = handlers
        self._loaded = loaded
        self._prepared: dict[int, Prepared] = {}
        self._rates = Rates() if rates is None else rates
        self._foreign = self._rates.buckets(peer.caller, "", "")

    def limit_anew(self) -> None:
        """The rates have changed."""
        self._foreign = self._rates.buckets(self._peer.caller, "", "")
        for prepared in self._prepared.values():
            prepared.buckets = self._buckets(prepared.method, prepared.name)

    def limit(self, refusal: Refusal) -> Refusal:
        """What a request that could not be taken is answered with: it counts like any other."""
        if self._foreign:
            try:
                admit(self._foreign, 1)
            except Refusal as limited:
                return limited
        return refusal

    def take(self, request: Request) -> tuple[Prepared, Checked]:
        """Raises Refusal request.*; `foreign_fragment` names such a request in the audit log."""
        try:
            if request.shape:
                known = self._prepared[request.shape]
                template = known.template
                if template is not None:
                    return known, template.fill(request.holes)
            return self._take_new(request)
        except InvalidArguments as error:
            raise Refusal("request.invalid", error.message, details={"field": error.field}) from None

    def _take_new(self, request: Request) -> tuple[Prepared, Checked]:
        method = METHODS.get(request.method)
        if method is None:
            near = get_close_matches(request.method[:_QUOTED_MOST], METHODS, 3)
            raise Refusal("request.unknown_method", details={"nearest": near} if near else None)
        checked = check(method, request.params)
        prepared = self._prepare(method, checked)
        if checked.plain_text:
            shape = self._reader.learn(request)
            if shape:
                prepared.template = Template(checked, request.holes)
                self._keep(shape, prepared)
        return prepared, checked

    def _prepare(self, method: Method, checked: Checked) -> Prepared:
        name = ""
        resource: Resource | None = SYSTEM
        if method.target is not None:
            given = checked.values[method.target]
            name = given if isinstance(given, str) else ""
            if method.on == "Vault":
                check_vault(name)
            else:
                split(name)
            resource = self._resource(method, name)
        fragment = f'"method":"{method.name}",{self._peer.audit}'
        if name:
            fragment += f',"{method.target}":{json.dumps(name)}'
        return Prepared(method, self._handlers[method.name], name, resource, fragment, self._buckets(method, name))

    def _buckets(self, method: Method, name: str) -> tuple[Bucket, ...]:
        return self._rates.buckets(self._peer.caller, method.name, name.partition("/")[0])

    def _resource(self, method: Method, name: str) -> Resource | None:
        if method.on != "Key":
            return Resource(method.on, name)
        facts = self._loaded(name)
        return Resource("Key", name, facts) if facts else None

    def _keep(self, shape: int, prepared: Prepared) -> None:
        if len(self._prepared) >= _KEPT:
            alive = set(self._reader.shapes)
            self._prepared = {known: kept for known, kept in self._prepared.items() if known in alive}
        self._prepared[shape] = prepared


def intakes(
    handlers: Mapping[str, Handler], loaded: Loaded, rates: Rates | None = None
) -> Callable[[Reader, Peer], Intake]:
    """What makes an Intake for each connection."""

    def make(reader: Reader, peer: Peer) -> Intake:
        return Intake(reader, peer, handlers, loaded, rates)

    return make


def foreign_fragment(request: Request, peer: Peer) -> str:
    """How the audit log names a request that could not be taken: its method only if that is one of ours."""
    method = request.method if request.method in METHODS else "unknown"
    return f'"method":"{method}",{peer.audit}'
