"""Signals wake everybody who waits, once, whichever side comes first."""

from __future__ import annotations

import asyncio
import functools
import threading

from perdure.store.signal import Signal, settle


def test_threads_that_wait_are_woken() -> None:
    """Every blocked thread goes on."""
    signal, woken = Signal(), []
    threads = [threading.Thread(target=lambda: woken.append(signal.wait_blocking(20))) for _ in range(8)]
    for thread in threads:
        thread.start()
    signal.settle("value")
    for thread in threads:
        thread.join(20)
    assert woken == [True] * 8
    assert signal.value == "value"


def test_a_wait_can_time_out_and_is_forgotten() -> None:
    """A timeout leaves no waiter behind."""
    signal = Signal()
    assert not signal.wait_blocking(0.001)
    assert signal.take() == []


def test_tasks_on_several_loops_are_woken_by_one_settle() -> None:
    """Many signals, several loops: each task goes on."""
    signals = [Signal() for _ in range(50)]
    ready = threading.Barrier(3)
    done: list[int] = []

    async def wait_for_all() -> None:
        tasks = [asyncio.create_task(signal.wait()) for signal in signals]
        await asyncio.to_thread(ready.wait, 20)
        await asyncio.wait_for(asyncio.gather(*tasks), 20)
        done.append(len(tasks))

    loops = [threading.Thread(target=asyncio.run, args=(wait_for_all(),)) for _ in range(2)]
    for thread in loops:
        thread.start()
    ready.wait(20)
    settle(signals)
    for thread in loops:
        thread.join(20)
    assert done == [50, 50]


def test_no_wake_up_is_lost_between_looking_and_waiting() -> None:
    """However the two sides interleave, the waiter goes on."""
    for _ in range(2000):
        signal = Signal()
        settler = threading.Thread(target=signal.settle)
        settler.start()
        assert signal.wait_blocking(20)
        settler.join()


def test_a_callback_runs_exactly_once() -> None:
    """Registered before, or after, or at the same time."""
    for _ in range(500):
        signal = Signal()
        calls: list[int] = []
        settler = threading.Thread(target=signal.settle)
        settler.start()
        signal.call(functools.partial(calls.append, 1))
        settler.join()
        assert calls == [1]


def test_the_first_value_stays() -> None:
    """A signal is settled for good."""
    signal = Signal()
    signal.settle(1)
    signal.settle(2)
    assert signal.value == 1
