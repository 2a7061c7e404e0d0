"""The mailbox: each message to one receiver, first come, first served on both sides; nothing is lost or seen twice."""

from __future__ import annotations

import random
import threading

import pytest

from perdure.core.mailbox import Letter, Mailbox, Want


def deliver(mailbox: Mailbox, *numbers: int, topic: str = "t") -> bool:
    """A look into the database that begins and ends now, and finds these messages."""
    _, look = mailbox.ask(topic)
    return mailbox.arrived(topic, [(number, str(number).encode()) for number in numbers], look)


def number_of(want: Want) -> int | None:
    return want.letter.number if want.letter else None


def test_who_waits_longest_is_served_first() -> None:
    """Two receivers, one message, then another: in the order in which they came."""
    mailbox = Mailbox(1)
    first, second = mailbox.want("t"), mailbox.want("t")
    assert deliver(mailbox, 5)
    assert (first.done, number_of(first), second.done) == (True, 5, False)
    assert not deliver(mailbox, 6)
    assert number_of(second) == 6


def test_what_is_there_is_given_at_once() -> None:
    """Messages that nobody wanted yet are kept in order."""
    mailbox = Mailbox(1)
    mailbox.want("t")
    deliver(mailbox, 1, 2, 3)
    assert [number_of(mailbox.want("t")) for _ in range(2)] == [2, 3]
    assert not mailbox.want("t").done


def test_topics_are_lines_of_their_own() -> None:
    """A message of one serves nobody in another."""
    mailbox = Mailbox(1)
    want = mailbox.want("t")
    mailbox.want("u")
    deliver(mailbox, 1, topic="u")
    assert not want.done
    assert mailbox.seen("t") == (0, 1)
    assert mailbox.seen("u") == (1, 0)


def test_what_the_record_names_is_never_given_again() -> None:
    """A new owner reads all of them, and gives out only what no step has consumed."""
    mailbox = Mailbox(1, consumed=[1, 3])
    want = mailbox.want("t")
    deliver(mailbox, 1, 2, 3)
    assert number_of(want) == 2
    assert not mailbox.want("t").done
    assert mailbox.seen("t") == (3, 1)


def test_two_looks_that_overlap_give_nothing_twice() -> None:
    """Both begin before either ends, and find the same."""
    mailbox = Mailbox(1)
    wants = [mailbox.want("t") for _ in range(3)]
    looks = [mailbox.ask("t")[1] for _ in range(2)]
    for look in looks:
        mailbox.arrived("t", [(1, b"1"), (2, b"2")], look)
    assert [number_of(want) for want in wants] == [1, 2, None]


def test_a_look_goes_on_after_what_was_seen() -> None:
    """The next one asks for later messages only."""
    mailbox = Mailbox(1)
    assert mailbox.ask("t") == (0, 1)
    deliver(mailbox, 7)
    assert mailbox.ask("t") == (7, 3)


def test_leaving_before_being_served_takes_nothing() -> None:
    """The message goes to the next in line."""
    mailbox = Mailbox(1)
    first, second = mailbox.want("t"), mailbox.want("t")
    assert mailbox.leave(first) is None
    deliver(mailbox, 1)
    assert (number_of(first), number_of(second)) == (None, 1)


def test_what_is_given_back_goes_to_its_place_in_the_line() -> None:
    """Before later messages, whenever it comes back, and at once to whoever waits."""
    mailbox = Mailbox(1)
    wants = [mailbox.want("t") for _ in range(2)]
    deliver(mailbox, 1, 2, 3)
    letters = [letter for want in wants if (letter := mailbox.leave(want)) is not None]
    for letter in reversed(letters):
        mailbox.give_back("t", letter)
    assert [number_of(mailbox.want("t")) for _ in range(3)] == [1, 2, 3]
    waiting = mailbox.want("t")
    mailbox.give_back("t", Letter(2, b"2"))
    assert number_of(waiting) == 2


def test_a_want_that_was_told_to_stop_still_says_what_it_holds() -> None:
    """Its signal is settled by somebody else; the letter that it is given afterwards is not lost."""
    mailbox = Mailbox(1)
    want = mailbox.want("t")
    want.settle("stop")
    deliver(mailbox, 1)
    letter = mailbox.leave(want)
    assert letter == Letter(1, b"1")


def test_to_look_only_is_answered_by_the_next_look_that_begins() -> None:
    """A look that was under way already may have missed what is there now."""
    mailbox = Mailbox(1)
    want = mailbox.want("t")
    _, under_way = mailbox.ask("t")
    mailbox.only_look(want)
    assert mailbox.arrived("t", [], under_way)
    assert not want.done
    assert not deliver(mailbox)
    assert (want.done, number_of(want)) == (True, None)


def test_to_look_only_takes_what_the_look_finds() -> None:
    """A message that the look finds is given, not missed."""
    mailbox = Mailbox(1)
    want = mailbox.want("t")
    mailbox.only_look(want)
    deliver(mailbox, 4)
    assert number_of(want) == 4


def test_seen_counts_those_who_still_wait() -> None:
    """A run may be put away only with as many waiting as it thinks: one that was just served shows."""
    mailbox = Mailbox(1)
    mailbox.want("t"), mailbox.want("t")
    assert mailbox.seen("t") == (0, 2)
    deliver(mailbox, 9)
    assert mailbox.seen("t") == (9, 1)
    assert mailbox.is_wanted("t")
    assert not mailbox.is_wanted("never")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_message_is_seen_once_and_in_order(seed: int) -> None:
    """A sequential receiver that is cancelled at random, against looks that repeat and overlap at random."""
    chance, mailbox = random.Random(seed), Mailbox(1)
    got: list[int] = []
    sent = 0
    want = mailbox.want("t")
    while len(got) < 50:
        if chance.random() < 0.5:
            sent += chance.randint(0, 3)
            since, look = mailbox.ask("t")
            mailbox.arrived("t", [(number, b"") for number in range(since + 1, sent + 1)], look)
        if chance.random() < 0.3:
            if (letter := mailbox.leave(want)) is not None:
                mailbox.give_back("t", letter)
            want = mailbox.want("t")
        if want.letter is not None:
            got.append(want.letter.number)
            want = mailbox.want("t")
    assert got == list(range(1, len(got) + 1))


def test_threads_that_receive_and_look_at_the_same_time_share_all_messages() -> None:
    """Four receivers in threads, two looks at a time: each message to exactly one of them."""
    mailbox, got, total = Mailbox(1), list[int](), 400
    mailbox.want("t")

    def receive() -> None:
        for _ in range(100):
            want = mailbox.want("t")
            assert want.wait_blocking(20)
            assert want.letter is not None
            got.append(want.letter.number)

    def look() -> None:
        while mailbox.seen("t")[0] < total + 1:
            since, number = mailbox.ask("t")
            mailbox.arrived("t", [(n, b"") for n in range(since + 1, min(since + 7, total + 2))], number)

    threads = [threading.Thread(target=work) for work in [receive] * 4 + [look] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(got) == list(range(2, total + 2))
