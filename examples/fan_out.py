"""Ten thousand parcels are weighed, two hundred at a time; some scales are broken, and that is borne.

Shows `perdure.map_steps`: each item is a step of its own with its own record, so a crash in the middle repeats only what
was under way. `limit` bounds how many are under way, `tolerate` how many may fail; one more fails the run. Kill the
program and run it again: it goes on. Run it once more: it only reads the result.

Run: `python examples/fan_out.py`
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

import perdure
from perdure import Perdure, step, workflow


class BrokenScale(Exception):
    """The parcel could not be weighed."""


@dataclass
class Summary:
    """What was found."""

    weighed: int
    grams: int
    failed: dict[str, int]


@workflow
async def weigh_all(parcels: int) -> Summary:
    """Weigh all parcels, of which one in a hundred may fail."""
    done = await perdure.map_steps(weigh, range(parcels), limit=200, tolerate=0.01)
    failed = Counter(str(failure.error) for failure in done.failures)
    return Summary(len(done.results), sum(done.results), dict(sorted(failed.items())))


@step
async def weigh(parcel: int) -> int:
    """Weigh a parcel; returns grams."""
    return await scales.weigh(parcel)


class Scales:
    """Stands for three scales on the network, which are broken for every 500th parcel."""

    def __init__(self) -> None:
        self._busy = 0
        self.most_busy = 0

    async def weigh(self, parcel: int) -> int:
        """Return grams."""
        self._busy += 1
        self.most_busy = max(self.most_busy, self._busy)
        await asyncio.sleep(0.01)
        self._busy -= 1
        if parcel % 500 == 499:
            raise BrokenScale(f"scale {parcel % 3} is broken")
        return 100 + parcel % 7


scales = Scales()


async def main() -> None:
    """Weigh them, and say how it went."""
    began = time.monotonic()
    async with Perdure(grace=0):
        summary = await weigh_all.options(id="weighing")(10_000)
    print(f"{summary.weighed:,} parcels, {summary.grams:,} g, in {time.monotonic() - began:.1f} s")
    print(f"at most {scales.most_busy} at a time")
    for reason, times in summary.failed.items():
        print(f"{reason}: {times} parcels left out")
    assert summary.weighed == 9_980
    assert sum(summary.failed.values()) == 20
    assert summary.grams == sum(100 + parcel % 7 for parcel in range(10_000) if parcel % 500 != 499)
    assert scales.most_busy <= 200


if __name__ == "__main__":
    asyncio.run(main())
