"""A person edits a draft until it is right, and then approves it.

Shows updates: requests that want an answer. The run checks each edit, and replies with the new text, or rejects it with
an error that is raised where the edit was asked for. Whoever asks knows at once what became of it, and asking
again with the same id gives the same answer. Editing goes on until the approval, a message, ends the race.

Run: `python examples/human_in_the_loop.py`
"""

import asyncio
from dataclasses import dataclass

import perdure
from perdure import Perdure, Topic, step, workflow

LONGEST = 60


@dataclass
class Edit:
    """Put a text in the place of another."""

    old: str
    new: str


edits = Topic("edit", Edit)
approval = Topic("approval", str)


@workflow
async def announcement(event: str) -> str:
    """Write a text, have it edited and approved, and publish it; returns what was published."""
    draft = Draft(await write(event))
    approved = perdure.receive(approval)
    await perdure.race(draft.take_edits(), approved)
    await publish(draft.text)
    return draft.text


class Draft:
    """A text and who may change it."""

    def __init__(self, text: str) -> None:
        self.text = text

    async def take_edits(self) -> None:
        """Answer edits, for as long as anybody asks."""
        async for request in perdure.updates(edits):
            try:
                self.text = edited(self.text, request.payload)
            except ValueError as error:
                await request.reject(error)
            else:
                await request.reply(self.text)


def edited(text: str, edit: Edit) -> str:
    """Return the text after an edit; a ValueError says what is wrong with it."""
    if edit.old not in text:
        raise ValueError(f"the draft does not say {edit.old!r}")
    text = text.replace(edit.old, edit.new)
    if len(text) > LONGEST:
        raise ValueError(f"that would be {len(text)} characters, and {LONGEST} are allowed")
    return text


@step
async def write(event: str) -> str:
    """Write a first draft: a language model might."""
    return f"We are thrilled to announce {event}!!!"


@step
async def publish(text: str) -> None:
    """Publish it: here it is only printed."""
    print(f"published: {text}", flush=True)


async def main() -> None:
    """Be the editor."""
    async with Perdure(grace=0):
        handle = await announcement.start("a concert")
        for edit in [
            Edit("thrilled", "happy"),
            Edit("a concert", "a concert in the old town hall, with all of our friends"),
            Edit("an opera", "a concert"),
            Edit("!!!", "."),
        ]:
            try:
                print(f"editor: the draft is now {await handle.update(edits, edit, type=str)!r}")
            except ValueError as error:
                print(f"editor: rejected, {error}")
        await handle.send(approval, "grace")
        text = await handle.result()
    assert text == "We are happy to announce a concert."


if __name__ == "__main__":
    asyncio.run(main())
