"""A coroutine run to its end on the reactor, for commands that make calls."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import react

_Result = TypeVar("_Result")


def runOnReactor(work: Callable[[Any], Coroutine[Deferred[Any], Any, _Result]]) -> _Result:
    """
    Start the reactor, hand it to `work` (as Any: it provides many interfaces), and give back what comes of it.

    :raises Exception: whatever `work` raises.
    """
    results: list[_Result] = []
    errors: list[Exception] = []

    async def keepOutcome(reactor: Any) -> None:  # Any: see above
        try:
            results.append(await work(reactor))
        except Exception as e:  # react would print its traceback; the command has one line for it
            errors.append(e)

    try:
        react(keepOutcome)
    except SystemExit:
        # react always exits; by a signal there is no outcome, and the exit is meant
        if not results and not errors:
            raise
    if errors:
        raise errors[0]
    return results[0]
