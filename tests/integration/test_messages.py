"""Messages, as their users see them: in order, each once, to runs in any state, with clear errors, in both colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import perdure
from perdure import Perdure, RunEnded, SerializationError, Topic, WorkflowNotFound, workflow
from tests.api_tools import on_loop, until_true
from tests.message_tools import COLLECT, COLOURS, SEND, WAIT_A_LITTLE, asked, collect, sent, waiting

both = pytest.mark.parametrize("colour", COLOURS)


@dataclass
class Approval:
    by: str
    ok: bool = True


approvals = Topic("approval", Approval)


@workflow(name="messages.approve")
async def approve(count: int) -> list[str]:
    seen = []
    for _ in range(count):
        try:
            seen.append((await perdure.receive(approvals)).by)
        except SerializationError as error:
            seen.append(str(error))
    return seen


@workflow(name="messages.try_to_send")
async def try_to_send(ids: list[str], together: bool = False) -> list[str]:
    seen = []
    for id in ids[:1] if together else ids:
        try:
            if together:
                await perdure.send_many([(other, "t", 1) for other in ids])
            else:
                await perdure.send(id, "t", 1)
            seen.append("sent")
        except (WorkflowNotFound, RunEnded) as error:
            seen.append(f"{type(error).__name__}: {error}")
    await perdure.receive("go on", timeout=0.01, default=None)
    return seen


@both
@on_loop
async def test_messages_come_in_the_order_in_which_they_were_sent(colour: str, database_url: str) -> None:
    """From a client and from workflows of both colours, to a receiver in memory."""
    async with Perdure(database_url, grace=0):
        handle = await perdure.start(COLLECT[colour].options(id="c"), 30)
        for value in range(10):
            await handle.send("t", value)
        for other, first in (("async", 10), ("blocking", 20)):
            await (await perdure.start(SEND[other], "c", list(range(first, first + 10)))).result(20)
        assert await handle.result(20) == list(range(30))


@both
@on_loop
async def test_topics_do_not_mix(colour: str, database_url: str) -> None:
    """A message of another topic stays where it is."""
    async with Perdure(database_url, grace=0):
        handle = await perdure.start(COLLECT[colour].options(id="c"), 2, "mine")
        await perdure.send_many([("c", "other", 1), ("c", "mine", 2), ("c", "other", 3), ("c", "mine", 4)])
        assert await handle.result(20) == [2, 4]


@pytest.mark.parametrize("seconds", [0, 0.1])
@both
@on_loop
async def test_a_receive_that_gives_up_raises_or_returns_the_default(
    colour: str, seconds: float, database_url: str
) -> None:
    """WaitTimeout names the topic; a default is returned instead."""
    async with Perdure(database_url, grace=0):
        seen = await (await perdure.start(WAIT_A_LITTLE[colour], seconds)).result(20)
        assert seen == ["nothing", f"no message came on 't' within {seconds:g} s"]


@both
@on_loop
async def test_timeout_0_takes_what_is_there(colour: str, database_url: str) -> None:
    """To look only is to look into the database: what was sent before the run began is found."""
    async with Perdure(database_url, grace=0):
        chosen = WAIT_A_LITTLE[colour].options(id="c", delay=0.3)
        handle = await perdure.start(chosen, 0)
        await perdure.send_many([("c", "t", "one"), ("c", "t", "two")])
        assert await handle.result(20) == ["one", "two"]


@pytest.mark.parametrize("options", [{"queue": "nobody serves"}, {"delay": 3600}], ids=["queued", "delayed"])
@on_loop
async def test_a_run_that_has_not_begun_can_be_sent_to(options: dict[str, Any], database_url: str) -> None:
    """The messages wait for it, in order."""
    async with Perdure(database_url, grace=0):
        handle = await collect.options(id="c", **options).start(2)
        await handle.send("t", 1)
        await handle.send("t", 2)
        await asked(
            database_url,
            "update perdure.live set queue = 'default', status = 2, ready = null where status < 3",
        )
        assert await handle.result(20) == [1, 2]


@on_loop
async def test_a_parked_run_keeps_its_messages(database_url: str) -> None:
    """Sent while the run is parked, received once it is resumed."""
    async with Perdure(database_url, grace=0) as app:
        handle = await collect.options(id="c", queue="nobody serves").start(1)
        await asked(database_url, "update perdure.live set status = 6, reason = 'test', queue = 'default'")
        await handle.send("t", 1)
        assert await app.runs.resume("c") == 1
        assert await handle.result(20) == [1]


@on_loop
async def test_a_client_that_runs_nothing_can_send(database_url: str) -> None:
    """`worker=False` sends, one and many."""
    async with Perdure(database_url, grace=0), Perdure(database_url, worker=False) as client:
        handle = client.handle("c")
        with client.bind():
            await client.start("mail.collect", args=[3], id="c")
            await perdure.send("c", "t", 1)
            await perdure.send_many([("c", "t", 2), ("c", "t", 3)])
        assert await handle.result(20) == [1, 2, 3]


# -- who cannot be sent to -----------------------------------------------------------------------------


@on_loop
async def test_an_unknown_target_is_an_error_from_outside(database_url: str) -> None:
    """WorkflowNotFound, with the id."""
    async with Perdure(database_url, grace=0):
        with pytest.raises(WorkflowNotFound, match="no run has the id 'nobody'"):
            await perdure.send("nobody", "t", 1)


@on_loop
async def test_an_ended_target_is_an_error_from_outside(database_url: str) -> None:
    """RunEnded, with the id; nothing is kept."""
    async with Perdure(database_url, grace=0):
        assert await collect.options(id="c")(0) == []
        with pytest.raises(RunEnded, match="run c has ended: nothing can be sent to it"):
            await perdure.send("c", "t", 1)
    assert sent(database_url) == []


@on_loop
async def test_a_workflow_is_told_of_bad_targets_and_goes_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same errors, recorded: the run catches them, and sees them again when it is replayed."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.02)
    expected = [
        "WorkflowNotFound: no run has the id 'nobody'",
        "RunEnded: run over has ended: nothing can be sent to it",
        "sent",
    ]
    async with Perdure(database_url, grace=0):
        await collect.options(id="over")(0)
        await collect.options(id="c").start(1, "never")
        handle = await try_to_send.options(id="s").start(["nobody", "over", "c"])
        assert await handle.result(20) == expected
        recorded = [(step.kind, step.failed) for step in await handle.steps()][:3]
    assert recorded == [("send", True), ("send", True), ("send", False)]


@pytest.mark.parametrize("bad", ["nobody", "over"])
@on_loop
async def test_send_many_from_a_workflow_is_all_or_nothing(bad: str, database_url: str) -> None:
    """One target that cannot be sent to, and nobody gets anything; the error names it."""
    async with Perdure(database_url, grace=0):
        await collect.options(id="over")(0)
        for id in ("a", "b"):
            await collect.options(id=id).start(1, "never")
        seen = await try_to_send(["a", bad, "b"], together=True)
        assert bad in seen[0]
        assert sent(database_url) == []
        assert await try_to_send(["a", "b", "a"], together=True) == ["sent"]
    assert sent(database_url) == ["1", "1", "1"]


@on_loop
async def test_send_many_from_outside_reaches_the_others(database_url: str) -> None:
    """An unknown target raises, and the messages to the others are sent, as the docstring says."""
    async with Perdure(database_url, grace=0):
        await collect.options(id="a").start(1, "never")
        with pytest.raises(WorkflowNotFound, match="nobody"):
            await perdure.send_many([("nobody", "t", 1), ("a", "t", 2)])
        await perdure.send_many([])
    assert sent(database_url) == ["2"]


# -- keys ----------------------------------------------------------------------------------------------


@on_loop
async def test_a_key_sends_once(database_url: str) -> None:
    """The same key and topic twice: once; another topic, another target or no key: again. Also after the end."""
    async with Perdure(database_url, grace=0):
        for id in ("a", "b"):
            await collect.options(id=id).start(1, "end")
        for _ in range(2):
            await perdure.send("a", "t", "first", key="k")
            await perdure.send("a", "t", "same key, other payload", key="k")
            await perdure.send("a", "u", 1, key="k")
            await perdure.send("b", "t", "to b", key="k")
        for _ in range(2):
            await perdure.send("a", "v", 1)
        await perdure.send("a", "end", 1)
        await collect.handle("a").result(20)
        await perdure.send("a", "t", "it was sent before the end", key="k")
        with pytest.raises(RunEnded):
            await perdure.send("a", "t", "it was not", key="other")
    assert sorted(sent(database_url)) == ['"first"', '"to b"']
    assert (sent(database_url, "u"), sent(database_url, "v")) == (["1"], ["1", "1"])


@workflow(name="messages.lives")
async def lives(life: int = 1) -> int:
    while await perdure.receive("t") != "stop":
        await perdure.continue_as_new(life + 1)
    return life


@pytest.mark.xfail(strict=True, reason="keys of consumed messages stay with the life that consumed them")
@on_loop
async def test_a_key_holds_when_the_run_goes_on_as_new(database_url: str) -> None:
    """`continue_as_new` in between: the second message with the key still changes nothing."""
    async with Perdure(database_url, grace=0):
        handle = await lives.options(id="c").start()
        await handle.send("t", "next life", key="k")
        await until_true(lambda: asked(database_url, "select 1 from perdure.ends"))
        await handle.send("t", "next life", key="k")
        await handle.send("t", "stop")
        assert await handle.result(20) == 2


@on_loop
async def test_messages_that_were_not_received_are_the_next_lifes(database_url: str) -> None:
    """In order, before those that come later; sent while the run goes on as new, none is lost."""
    async with Perdure(database_url, grace=0):
        handle = await lives.options(id="c", delay=0.1).start()
        for number in range(20):
            await handle.send("t", number)
        await handle.send("t", "stop")
        assert await handle.result(30) == 21


# -- a message with the start ----------------------------------------------------------------------------


@both
@on_loop
async def test_a_start_brings_its_first_message(colour: str, database_url: str) -> None:
    """In memory here, from a queue, and by an id: the message is there when the run begins."""
    workflow = COLLECT[colour]
    async with Perdure(database_url, grace=0):
        for options in ({}, {"queue": "default"}, {"id": "x"}, {"id": "y", "queue": "default"}):
            handle = await perdure.start(workflow.options(send=("t", "hello"), **options), 1)
            assert (handle.created, await handle.result(20)) == (True, ["hello"])


@on_loop
async def test_a_start_that_attaches_sends_its_message_to_the_run_there(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory, and put away: it is woken."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.05)
    async with Perdure(database_url, grace=0):
        chosen = collect.options(id="c", send=("t", "hello"))
        assert (await chosen.start(3)).created
        assert not (await chosen.start(3)).created
        await waiting(database_url)
        handle = await chosen.start(3)
        assert not handle.created
        assert await handle.result(20) == ["hello"] * 3


@workflow(name="messages.mother")
async def mother(id: str | None) -> list[Any]:
    child = await collect.options(id=id, send=(Topic("t", str), "from mother")).start(2)
    await child.send("t", "again")
    return await child.result()


@pytest.mark.parametrize("id", [None, "child"])
@on_loop
async def test_a_child_can_be_born_with_a_message(id: str | None, database_url: str) -> None:
    """With an id of its own and with one that is given."""
    async with Perdure(database_url, grace=0):
        assert await mother(id) == ["from mother", "again"]


@on_loop
async def test_a_start_with_a_message_of_the_wrong_type_starts_nothing(database_url: str) -> None:
    """The error is raised where the options are given."""
    async with Perdure(database_url, grace=0):
        with pytest.raises(SerializationError):
            collect.options(id="c", send=(approvals, "yes"))
    assert await asked(database_url, "select count(*) from perdure.runs") == [(0,)]


# -- payloads ------------------------------------------------------------------------------------------


@on_loop
async def test_a_payload_of_the_wrong_type_is_consumed_with_a_clear_error(database_url: str) -> None:
    """It would stand in the way for ever; the next one is received as usual."""
    async with Perdure(database_url, grace=0):
        handle = await approve.options(id="c").start(2)
        await handle.send("approval", {"by": 5})
        await handle.send(approvals, Approval("anna"))
        first, second = await handle.result(20)
    assert first.startswith("a message on 'approval' is not what was expected: ")
    assert second == "anna"


@on_loop
async def test_a_wrong_payload_is_refused_where_it_is_sent(database_url: str) -> None:
    """A topic knows its type, so the sender gets the error and nothing is sent."""
    async with Perdure(database_url, grace=0):
        handle = await approve.options(id="c").start(1)
        with pytest.raises(SerializationError):
            await handle.send(approvals, "yes")  # type: ignore[misc]
    assert sent(database_url, "approval") == []


@pytest.mark.parametrize("name", ["", "!update/x", "a\0b"])
def test_a_topic_needs_a_plain_name(name: str) -> None:
    """Empty, perdure's own and unstorable names are refused by everything that takes one."""
    with pytest.raises(ValueError, match="name"):
        Topic(name)
