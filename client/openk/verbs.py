"""How a function that makes an operation becomes a method: of a client that returns the result, of one that is
awaited, of a pipeline that promises it. One list of methods (`nouns`) serves all three.

A noun is a `Space[M]`, where M is the kind of runner it has: `Runner`, `AsyncRunner` or `LateRunner`. A verb is a
descriptor in it, whose overloads give the method of each kind its return type. Parameters and result types are those
of the function.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from openk.future import Future
from openk.operation import Operation

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M")


class Runner(Protocol):
    def run(self, operation: Operation[R], /) -> R:
        """The result. Raises Error."""
        ...


class AsyncRunner(Protocol):
    # Any: what a coroutine yields and is sent is its event loop's business.
    def run(self, operation: Operation[R], /) -> Coroutine[Any, Any, R]:
        """The result. Raises Error."""
        ...


class LateRunner(Protocol):
    def run(self, operation: Operation[R], /) -> Future[R]: ...


class Space(Generic[M]):
    """The methods of one noun, done by `runner`."""

    def __init__(self, runner: M) -> None:
        self.runner = runner


class Verb(Generic[P, R]):
    """`make`: the function behind the method."""

    def __init__(self, make: Callable[P, Operation[R]]) -> None:
        self.make = make
        self.__doc__ = make.__doc__
        self.__wrapped__ = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, space: None, owner: type) -> Verb[P, R]: ...
    @overload
    def __get__(self, space: Space[Runner], owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, space: Space[AsyncRunner], owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, space: Space[LateRunner], owner: type) -> Callable[P, Future[R]]: ...
    def __get__(
        self, space: Space[Runner] | Space[AsyncRunner] | Space[LateRunner] | None, owner: type
    ) -> Verb[P, R] | Callable[P, R] | Callable[P, Coroutine[Any, Any, R]] | Callable[P, Future[R]]:
        """The method, made once for each object, with the signature and help of the function behind it."""
        if space is None:
            return self
        method = self._awaited(space.runner) if iscoroutinefunction(space.runner.run) else self._called(space.runner)
        method.__name__ = self._name
        method.__doc__ = self.__doc__
        method.__dict__["__wrapped__"] = self.make
        space.__dict__[self._name] = method
        return method

    # Any: whether the result comes at once, as a future or is awaited, the overloads above say.
    def _called(self, runner: Runner | AsyncRunner | LateRunner) -> Callable[P, Any]:
        run, make = runner.run, self.make

        def call(*args: P.args, **kwargs: P.kwargs) -> object:
            return run(make(*args, **kwargs))

        return call

    def _awaited(self, runner: Runner | AsyncRunner | LateRunner) -> Callable[P, Any]:
        run, make = cast(AsyncRunner, runner).run, self.make

        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return await run(make(*args, **kwargs))

        return call
