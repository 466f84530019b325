"""How a function that makes an operation becomes a method: of a client that returns the result (`Now`), of one that
is awaited (`Awaited`), of a pipeline that promises it (`Later`).

A verb is a descriptor; each namespace is a list of them. Parameters and result types are those of the function.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from openk.future import Future
from openk.operation import Operation

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=Callable[..., object])


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


class NowSpace:
    """The methods of one noun, blocking."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner


class AwaitedSpace:
    """The methods of one noun, awaited."""

    def __init__(self, runner: AsyncRunner) -> None:
        self.runner = runner


class LaterSpace:
    """The methods of one noun, in a pipeline."""

    def __init__(self, runner: LateRunner) -> None:
        self.runner = runner


class Verb(Generic[P, R]):
    """`make`: the function behind the method."""

    def __init__(self, make: Callable[P, Operation[R]]) -> None:
        self.make = make
        self.__doc__ = make.__doc__
        self.__wrapped__ = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def keep(self, space: object, call: C) -> C:
        """Made once for each namespace object, with the signature and help of the function behind it."""
        call.__name__ = self._name
        call.__doc__ = self.__doc__
        call.__dict__["__wrapped__"] = self.make
        space.__dict__[self._name] = call
        return call


class Now(Verb[P, R]):
    @overload
    def __get__(self, space: None, owner: type) -> Verb[P, R]: ...
    @overload
    def __get__(self, space: NowSpace, owner: type) -> Callable[P, R]: ...
    def __get__(self, space: NowSpace | None, owner: type) -> Verb[P, R] | Callable[P, R]:
        if space is None:
            return self
        run, make = space.runner.run, self.make

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return run(make(*args, **kwargs))

        return self.keep(space, call)


class Awaited(Verb[P, R]):
    @overload
    def __get__(self, space: None, owner: type) -> Verb[P, R]: ...
    @overload
    def __get__(self, space: AwaitedSpace, owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, space: AwaitedSpace | None, owner: type) -> Verb[P, R] | Callable[P, Coroutine[Any, Any, R]]:
        if space is None:
            return self
        run, make = space.runner.run, self.make

        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return await run(make(*args, **kwargs))

        return self.keep(space, call)


class Later(Verb[P, R]):
    @overload
    def __get__(self, space: None, owner: type) -> Verb[P, R]: ...
    @overload
    def __get__(self, space: LaterSpace, owner: type) -> Callable[P, Future[R]]: ...
    def __get__(self, space: LaterSpace | None, owner: type) -> Verb[P, R] | Callable[P, Future[R]]:
        if space is None:
            return self
        run, make = space.runner.run, self.make

        def call(*args: P.args, **kwargs: P.kwargs) -> Future[R]:
            return run(make(*args, **kwargs))

        return self.keep(space, call)
