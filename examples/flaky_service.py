"""A service that often fails and is slow is asked until it has an answer, but not for ever.

Shows `Retry` for what goes wrong, `RetryAfter` for a service that says when to come back, `DoNotRetry` for what will
never work, and `perdure.timeout`, which bounds a block of workflow code by a durable clock.

Run: `python examples/flaky_service.py`
"""

import asyncio
from itertools import count

import perdure
from perdure import DoNotRetry, Perdure, Retry, RetryAfter, WaitTimeout, step, workflow

PATIENT = Retry(max_attempts=1000, delay=0.05, max_delay=1)


@workflow
async def report(name: str, patience: float) -> str:
    """Order a report and wait until it is ready; returns its text, or why there is none."""
    try:
        async with perdure.timeout(patience):
            ticket = await order(name)
            return await fetch(ticket)
    except WaitTimeout:
        return f"no {name} report within {patience:g} s"
    except DoNotRetry as final:
        return f"no {name} report: {final}"


@step(retry=PATIENT)
async def order(name: str) -> str:
    """Order a report; the key makes it one order, however often it is asked for."""
    return service.order(name, perdure.info().idempotency_key)


@step(retry=PATIENT)
async def fetch(ticket: str) -> str:
    """Fetch a report; while it is not ready the service says when to come back."""
    status, answer = service.fetch(ticket)
    print(f"{ticket}, attempt {perdure.info().attempt}: {status}", flush=True)
    if status == 202:
        raise RetryAfter(float(answer))
    if status == 404:
        raise DoNotRetry(answer)
    return answer


class Service:
    """Stands for a service on the network: every second call of it fails."""

    def __init__(self) -> None:
        self._calls = count(1)
        self._asked: dict[str, int] = {}
        self.orders: dict[str, str] = {}

    def order(self, name: str, key: str) -> str:
        """Take an order, once for each key."""
        self.orders[key] = name
        self._stumble()
        return f"ticket for {name}"

    def fetch(self, ticket: str) -> tuple[int, str]:
        """Return a status as HTTP has it, and the report or the seconds until one should ask again."""
        self._stumble()
        self._asked[ticket] = self._asked.get(ticket, 0) + 1
        if ticket.endswith("secret"):
            return 404, "there is none"
        if ticket.endswith("yearly") or self._asked[ticket] < 3:
            return 202, "0.2"
        return 200, f"the {ticket.removeprefix('ticket for ')} report"

    def _stumble(self) -> None:
        if next(self._calls) % 2:
            raise ConnectionError("the service does not answer")


service = Service()


async def main() -> None:
    """Order a report that takes a while, one that does not exist, and one that is never ready."""
    async with Perdure(grace=0):
        ready = await report("daily", 30)
        none = await report("secret", 30)
        late = await report("yearly", 1)
    print(ready, none, late, sep="\n")
    assert ready == "the daily report"
    assert none == "no secret report: there is none"
    assert late == "no yearly report within 1 s"
    assert sorted(set(service.orders.values())) == ["daily", "secret", "yearly"]


if __name__ == "__main__":
    asyncio.run(main())
