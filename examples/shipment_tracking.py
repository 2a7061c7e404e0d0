"""A parcel is followed by what carriers report: late, twice, in the wrong order.

Shows messages and events. Each report is a message with a key, so that a carrier can send it again without harm. The
run keeps the report with the highest number and makes it known as an event, which anybody can read at any
time, also after the end. It ends when the parcel is delivered; what comes later is refused.

Run: `python examples/shipment_tracking.py`
"""

import asyncio
from dataclasses import dataclass

import perdure
from perdure import Handle, Perdure, RunEnded, Topic, workflow


@dataclass
class Report:
    """What a carrier says of a parcel; a higher number happened later."""

    number: int
    state: str
    place: str


reports = Topic("report", Report)
position = Topic("position", Report)


@workflow
async def track() -> list[str]:
    """Follow a parcel until it is delivered; returns the places where it was known to be."""
    places: list[str] = []
    latest = Report(0, "announced", "nowhere")
    while latest.state != "delivered":
        report = await perdure.receive(reports)
        if report.number > latest.number:
            latest = report
            places.append(report.place)
            await perdure.set_event(position, report)
    return places


async def tell(handle: Handle[list[str]], report: Report) -> None:
    """Send a report, as a carrier would: the key is the carrier's own number."""
    print(f"carrier: {report.number} {report.state} in {report.place}", flush=True)
    await handle.send(reports, report, key=f"report-{report.number}")


async def main() -> None:
    """Send a parcel from Lisbon to Oslo."""
    collected = Report(1, "collected", "Lisbon")
    sorted_out = Report(2, "sorted", "Madrid")
    on_the_way = Report(3, "on the way", "Paris")
    delivered = Report(4, "delivered", "Oslo")

    async with Perdure(grace=0):
        handle = await track.start()
        await tell(handle, collected)
        known = await handle.get_event(position)
        print(f"customer: it is in {known.place}")

        await tell(handle, on_the_way)
        await tell(handle, sorted_out)  # overtaken by the one before: ignored
        await tell(handle, on_the_way)  # sent again: the key is known
        await tell(handle, delivered)
        places = await handle.result()

        try:
            await handle.send(reports, Report(5, "lost", "Bergen"))
        except RunEnded:
            print("carrier: too late, the parcel was delivered")
        known = await handle.get_event(position)
    print(f"customer: {known.state} in {known.place}, by way of {', '.join(places)}")
    assert known == delivered
    assert places == ["Lisbon", "Paris", "Oslo"]


if __name__ == "__main__":
    asyncio.run(main())
