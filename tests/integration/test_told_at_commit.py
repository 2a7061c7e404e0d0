"""Who waits is told by a commit, not by the next poll: where polls are far away, the news come all the same."""

from __future__ import annotations

import threading

import psycopg
import pytest

import perdure
from perdure import sync, workflow
from perdure.store.records import PutAway, WaitRecord
from tests.api_tools import PATIENCE, until
from tests.protocol_tools import RawWorker

NEVER = 600.0
pytestmark = pytest.mark.session


def test_mail_of_the_same_process_is_told_at_its_commit(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any hint: the receiver waits, its look has found nothing, and a message is committed here."""
    monkeypatch.setattr("perdure.worker.mail.POLL_SECONDS", NEVER)
    # Who puts a run away looks for news too.
    monkeypatch.setattr("perdure.worker.incarnation.put_away_after", lambda _: None)
    looked = threading.Event()

    @workflow(name="told.listening")
    def listening() -> str:
        return perdure.sync.receive("news", type=str, timeout=NEVER)

    with sync.Perdure(database_url) as app:
        mail, look = app.engine.mail, app.engine.mail._look

        def watched(lines: object) -> bool:
            try:
                return look(lines)  # type: ignore[arg-type]
            finally:
                looked.set()

        monkeypatch.setattr(mail, "_look", watched)
        monkeypatch.setattr(app.engine.hints, "tick", lambda: None)
        handle = sync.start(listening)
        assert looked.wait(PATIENCE)
        until(lambda: mail.awaited)
        handle.send("news", "here")
        assert handle.result(PATIENCE) == "here"


def test_an_end_is_told_to_the_process_that_started_the_run(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that would look again in ten minutes has the result of a run that a worker runs."""
    monkeypatch.setattr("perdure.worker.watcher.POLL_SECONDS", NEVER)
    begun, door = threading.Event(), threading.Event()

    @workflow(name="told.ending")
    def ending() -> int:
        begun.set()
        door.wait(PATIENCE)
        return 7

    with sync.Perdure(database_url), sync.Perdure(database_url, worker=False) as client, client.bind():
        watcher, look, looked = client.engine.watcher, client.engine.watcher.tick, threading.Event()

        def watched() -> float | None:
            waits = bool(watcher._watched)
            pause = look()
            if waits:
                looked.set()
            return pause

        monkeypatch.setattr(watcher, "tick", watched)
        handle = sync.start(ending)
        results: list[int] = []
        waiting = threading.Thread(target=lambda: results.append(handle.result(NEVER)), daemon=True)
        waiting.start()
        assert begun.wait(PATIENCE)
        assert looked.wait(PATIENCE)
        door.set()
        waiting.join(PATIENCE)
        assert results == [7]


@pytest.mark.parametrize("away", [False, True])
def test_a_message_sends_workers_to_look_for_work_only_if_it_woke_a_run(
    database_url: str, away: bool
) -> None:
    """One that is in memory is told by its mail alone: a look for each message took a third of a message's time."""
    with RawWorker(database_url, single=False) as owner, sync.Perdure(database_url, worker=False) as client:
        run = owner.start("c")
        owner.write(WaitRecord(run, "1", topic="t"))
        if away:
            owner.write(PutAway(run, {"1": 0}))
        with psycopg.connect(database_url, autocommit=True) as listener, client.bind():
            listener.execute(f'listen "{client.engine.database.channel}"'.encode())
            sync.send("c", "t", 1)
            (hint,) = listener.notifies(timeout=PATIENCE, stop_after=1)
        assert set(hint.payload.split()[1:]) == ({"mail", "work"} if away else {"mail"})
