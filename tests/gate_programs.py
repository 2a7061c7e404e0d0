"""Programs that make trouble for whoever replays them: every way in which asyncio lets branches meet.

What each of them does next depends on what was answered first, so only a replay that shows its code the same
situations in the same order gets through.
"""

from __future__ import annotations

import asyncio

import perdure
from perdure import step, workflow
from tests.gate_world import deaf, lane, refuse, roll, see, stubborn, told

# -- the ten programs on which rules were tried that did not hold -----------------------------------


@workflow
async def three_lanes() -> None:
    """Lanes side by side."""
    await asyncio.gather(lane("x"), lane("y", 3), lane("z"))


@workflow
async def whoever_is_first() -> None:
    """Wait for some, see how many and which came together, then ask again."""
    waiting = {asyncio.create_task(roll(name)) for name in "abcd"}
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        see(sorted(task.result() for task in done))
        await told(roll(f"after{len(done)}"))


@workflow
async def losers_are_cancelled() -> None:
    """The lane that loses a race is cancelled between its steps, and cleans up with another one."""

    async def racer(name: str) -> None:
        try:
            await lane(name, 3)
        except asyncio.CancelledError:
            see(f"{name} lost")
            await told(roll(f"{name} tidies up"))
            raise

    racers = [asyncio.create_task(racer(name)) for name in "abc"]
    _, losers = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
    for racing in racers:
        if racing in losers:
            racing.cancel()
    await asyncio.gather(*losers, return_exceptions=True)
    await told(roll("end"))


@workflow
async def groups_in_groups() -> None:
    """Branches of branches, each group followed by a step of its own."""

    async def inner(name: str) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(2):
                group.create_task(lane(f"{name}{number}"))
        await told(roll(f"{name} joined"))

    async with asyncio.TaskGroup() as group:
        for name in "pqr":
            group.create_task(inner(name))


@workflow
async def one_waits_for_the_other() -> None:
    """A branch waits in the middle for an event that another one sets."""
    event = asyncio.Event()

    async def waits() -> None:
        await lane("w", 1)
        await event.wait()
        see("woken")
        await lane("w again")

    async def sets() -> None:
        await lane("s", 2)
        event.set()
        await lane("s again", 1)

    await asyncio.gather(waits(), sets())


@workflow
async def left_behind() -> str:
    """A task that nobody waits for, which the end of the workflow overtakes."""
    task = asyncio.create_task(lane("behind", 5))
    await lane("ahead", 3)
    see(task.done())
    return "over"


@workflow
async def shared_variables() -> None:
    """What one branch asks depends on how far the other one has come."""
    notes: list[str] = []

    async def writes() -> None:
        await told(roll("first"))
        for _ in range(5):
            await asyncio.sleep(0)
        notes.append("written")
        await told(roll("second"))
        notes.append("and again")

    async def reads() -> None:
        await told(roll("ask"))
        see(list(notes))
        await told(roll("early" if not notes else "late"))
        see(list(notes))
        await told(roll(f"saw {len(notes)}"))

    await asyncio.gather(writes(), reads())


@workflow
async def cancelled_inside_a_step() -> None:
    """A branch is cancelled while the body of its step runs."""

    async def slow() -> None:
        try:
            await lane("slow", 3)
        finally:
            see("out")

    task = asyncio.create_task(slow())
    await told(roll("quick"))
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        see("cancelled")
    await told(roll("end"))


@workflow
async def cancelled_inside_a_deaf_step() -> None:
    """The body goes on although its caller was cancelled, and returns something that nobody waits for."""

    async def slow() -> None:
        try:
            await told(deaf("slow"))
            await told(deaf("slow again"))
        finally:
            see("out")

    tasks = [asyncio.create_task(slow()) for _ in range(2)]
    await told(roll("quick"))
    for task in tasks:
        task.cancel()
    see([type(outcome).__name__ for outcome in await asyncio.gather(*tasks, return_exceptions=True)])
    await lane("end", 3)


@workflow
async def deep_tree() -> None:
    """Recursion of gathers with shields, taken in the order in which they end."""

    async def tree(depth: int, name: str) -> str:
        if not depth:
            return await told(roll(name))
        right = asyncio.shield(asyncio.ensure_future(tree(depth - 1, name + "r")))
        await asyncio.gather(tree(depth - 1, name + "l"), right)
        return await told(roll(name))

    tasks = [asyncio.create_task(tree(2, name)) for name in "ab"]
    for first in asyncio.as_completed(tasks):
        see(await first)
        await told(roll("between"))


@workflow
async def through_a_queue() -> None:
    """Two producers, one consumer with steps of its own, and one task more to be cancelled."""
    queue: asyncio.Queue[str] = asyncio.Queue(maxsize=1)

    async def produces(name: str) -> None:
        for number in range(3):
            await queue.put(await roll(f"{name}{number}"))

    async def consumes() -> None:
        for _ in range(6):
            see(await queue.get())
            await told(roll("consumed"))

    loser = asyncio.create_task(lane("loser", 9))
    await asyncio.gather(produces("x"), produces("y"), consumes())
    loser.cancel()


# -- more of the same kind ---------------------------------------------------------------------------


@workflow
async def one_fails() -> None:
    """A branch fails; its siblings are cancelled by the group, wherever they are."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(lane("a", 4))
            group.create_task(told(refuse("b")))
            group.create_task(lane("c", 4))
    except* LookupError as errors:
        see([repr(error) for error in errors.exceptions])
    await told(stubborn("retried"))
    try:
        await told(refuse("alone"))
    except LookupError:
        await told(roll("end"))


@workflow
async def locks_and_conditions() -> None:
    """Branches take turns by a lock and a semaphore."""
    lock, places = asyncio.Lock(), asyncio.Semaphore(2)

    async def worker(name: str) -> None:
        async with places:
            await told(roll(name))
            async with lock:
                see(f"{name} has the lock")
                await told(roll(f"{name} inside"))

    await asyncio.gather(*(worker(name) for name in "abcd"))


@workflow
async def waits_inside_branches() -> None:
    """Durable sleeps, clock readings and chance in branches that race."""

    async def sleeper(name: str) -> None:
        see((name, perdure.random().random(), str(perdure.uuid4())))
        await perdure.sleep(60)
        see((name, "slept"))
        await told(roll(name))
        see((name, perdure.now()))

    await asyncio.gather(sleeper("a"), sleeper("b"), lane("c", 3))
    see(perdure.now())


@workflow
async def one_after_the_other() -> None:
    """No branches at all, then some, then none: in and out of the short path."""
    await lane("alone", 2)
    see(perdure.now())
    await asyncio.gather(lane("a", 1), lane("b", 2))
    await lane("alone again", 1)
    async with asyncio.TaskGroup() as group:
        group.create_task(lane("c", 2))
    await perdure.sleep(5)
    await lane("at last", 1)


@workflow
async def shielded_and_late() -> None:
    """What is shielded goes on when its waiter is cancelled, and is waited for afterwards."""
    inner = asyncio.create_task(lane("inner", 3))

    async def outer() -> None:
        await asyncio.shield(inner)

    waiter = asyncio.create_task(outer())
    await told(roll("quick"))
    waiter.cancel()
    see([type(outcome).__name__ for outcome in await asyncio.gather(waiter, return_exceptions=True)])
    await inner
    await asyncio.wait_for(lane("bounded", 2), timeout=600)


@workflow
async def a_set_of_losers() -> None:
    """The losers come out of `asyncio.wait` as a set, and are cancelled in the order of that set."""

    async def racer(name: str) -> None:
        try:
            await lane(name, 2)
        except asyncio.CancelledError:
            see(f"{name} lost")
            await told(roll(f"{name} tidies up"))

    racers = [asyncio.create_task(racer(name)) for name in "abcdef"]
    _, losers = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
    for loser in losers:
        loser.cancel()
    await asyncio.gather(*racers)


@workflow
async def a_group_that_aborts() -> None:
    """A failure cancels the siblings, which the group holds as a set, and each of them tidies up."""

    async def sibling(name: str) -> None:
        try:
            await lane(name, 9)
        except asyncio.CancelledError:
            see(f"{name} was cancelled")
            await told(roll(f"{name} tidies up"))
            raise

    try:
        async with asyncio.TaskGroup() as group:
            for name in "abcde":
                group.create_task(sibling(name))
            await told(refuse("no"))
    except* LookupError as errors:
        see(repr(errors.exceptions))


@workflow
async def a_callback_makes_a_branch() -> None:
    """A callback of the loop creates a task while the only branch waits for the body of its step."""
    tasks: list[asyncio.Task[None]] = []
    asyncio.get_running_loop().call_soon(lambda: tasks.append(asyncio.create_task(lane("late", 3))))
    await lane("main", 4)
    await asyncio.gather(*tasks)


@workflow
async def a_done_callback_makes_a_branch() -> None:
    """What is done when a task ends goes on as a branch of its own."""
    tasks: list[asyncio.Task[None]] = []

    async def short() -> None:
        await told(roll("short"))

    task = asyncio.create_task(short())
    task.add_done_callback(lambda _: tasks.append(asyncio.create_task(lane("next", 2))))
    await lane("main", 3)
    await asyncio.gather(*tasks)


# -- the first of several, many with a limit, none for longer than so long ----------------------------


async def racer(name: str, length: int = 2) -> str:
    """A lane that notes that it lost, and cleans up with a step."""
    try:
        await lane(name, length)
    except asyncio.CancelledError:
        see(f"{name} lost")
        await told(roll(f"{name} tidies up"))
        see(f"{name} is tidy")
        raise
    return name


async def refused(name: str) -> str:
    """A lane that fails."""
    await told(roll(name))
    return await refuse(name)


@workflow
async def races_of_lanes() -> None:
    """Races whose losers clean up, one after the other, and the steps between them."""
    for number in range(2):
        winner = await perdure.race(*(racer(f"{name}{number}") for name in "abcd"))
        see(tuple(winner))
        await told(roll("between"))


@workflow
async def races_in_a_gather() -> None:
    """Races side by side, and races of races: a loser may be in the middle of one."""

    async def heat(name: str) -> str:
        winner = await perdure.race(racer(name + "x", 1), racer(name + "y", 2))
        see((name, tuple(winner)))
        await told(roll(f"{name} after its heat"))
        return winner.value

    see(await asyncio.gather(heat("p"), heat("q"), lane("r", 3)))
    see(tuple(await perdure.race(heat("s"), racer("t", 2), heat("u"))))
    await told(roll("end"))


@workflow
async def races_that_fail() -> None:
    """The first to end may be one that fails, or one that has nothing to wait for."""
    for name in "ab":
        try:
            see(tuple(await perdure.race(refused(name), racer(f"{name} beside", 2))))
        except LookupError as error:
            see(repr(error))

    async def at_once() -> str:
        return "at once"

    see(tuple(await perdure.race(racer("late"), at_once(), at_once())))
    await told(roll("end"))


async def within(seconds: float, name: str, length: int) -> None:
    """A lane that is given so long."""
    try:
        async with perdure.timeout(seconds):
            await racer(name, length)
            see(f"{name} was in time")
    except perdure.WaitTimeout as error:
        see(str(error))
        await told(roll(f"{name} instead"))


@workflow
async def blocks_with_a_time() -> None:
    """Blocks that run out of time and blocks that do not, alone and side by side."""
    await within(60, "short", 1)
    await within(60, "long", 9)
    await asyncio.gather(within(60, "a", 2), within(60, "b", 4), within(60, "c", 9))
    async with perdure.timeout(60):
        see("nothing to wait for")
    await told(roll("end"))


@workflow
async def blocks_in_blocks() -> None:
    """Times within times, which may run out together, and after which the code goes on."""
    for name in "ab":
        try:
            async with perdure.timeout(60):
                await within(50, f"{name} inner", 3)
                await told(roll(f"{name} goes on in the outer block"))
                await perdure.race(racer(f"{name} races", 3), perdure.sleep(40))
        except perdure.WaitTimeout as error:
            see(str(error))
        await told(roll(f"{name} after it"))


@workflow
async def a_block_that_does_not_listen() -> None:
    """Code that takes the word to stop for something else, and goes on in the block."""
    try:
        async with perdure.timeout(60):
            try:
                await lane("deaf", 9)
            except asyncio.CancelledError:
                see("who cares")
            await told(roll("still inside"))
        see("no word of it")
    except perdure.WaitTimeout as error:
        see(str(error))
    await lane("after", 2)


@step
async def fickle(number: int) -> str:
    """A number, or an error, by chance."""
    answer = await roll.definition.function(f"item {number}")
    if int(answer.rpartition(":")[2]) % 3 == 0:
        raise LookupError(answer)
    return str(answer)


@workflow
async def maps_with_failures() -> None:
    """Many items with a limit: none may fail, some may, and who comes when is left to chance."""
    for tolerate in (5, 0.5, 0):
        try:
            result = await perdure.map_steps(fickle, iter(range(5)), limit=2, tolerate=tolerate)
            see((result.results, [(one.index, one.item, repr(one.error)) for one in result.failures]))
        except LookupError as error:
            see((repr(error), error.__notes__))
    await told(roll("end"))


@workflow
async def a_shielded_block() -> None:
    """A block that is not told to stop, beside branches that are, and a step after it."""

    async def shielded() -> None:
        async with perdure.shield():
            await lane("shielded", 3)
            see("the shield ends")
        await racer("bare", 2)

    await asyncio.gather(shielded(), lane("beside", 4), return_exceptions=True)
    with perdure.shield():
        await lane("again", 2)
    await told(roll("end"))


CONCURRENCY_PROGRAMS = [
    races_of_lanes,
    races_in_a_gather,
    races_that_fail,
    blocks_with_a_time,
    blocks_in_blocks,
    a_block_that_does_not_listen,
    maps_with_failures,
    a_shielded_block,
]


ASYNC_PROGRAMS = [
    *CONCURRENCY_PROGRAMS,
    a_set_of_losers,
    a_group_that_aborts,
    three_lanes,
    whoever_is_first,
    losers_are_cancelled,
    groups_in_groups,
    one_waits_for_the_other,
    left_behind,
    shared_variables,
    cancelled_inside_a_step,
    cancelled_inside_a_deaf_step,
    deep_tree,
    through_a_queue,
    one_fails,
    locks_and_conditions,
    waits_inside_branches,
    one_after_the_other,
    shielded_and_late,
]
