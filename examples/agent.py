"""An agent asks a model and uses tools until it has an answer, while a web page reads along, word by word.

Each call of the model and of a tool is a step, so what was answered before a crash is not asked, or paid for, again.
The model's words go on a stream, which FastAPI serves as server-sent events. The id of an event is its offset in
the stream: a browser that lost its connection sends it back as `Last-Event-ID`, and goes on from there. The words of
a call that was interrupted are discarded, and the page is told so. Kill it while the model talks, and run it again.
The model is a script: nothing but the program itself is called.

Run: `python examples/agent.py`, with `fastapi`, `uvicorn` and `httpx`.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

import httpx
import uvicorn
from fastapi import FastAPI, Header
from fastapi.responses import StreamingResponse

import perdure
from perdure import Discarded, Item, Perdure, Retry, Topic, step, workflow


@dataclass
class Message:
    """What the user, the model (which may want a tool) or a tool has said."""

    role: str
    text: str
    tool: str | None = None
    argument: str = ""


SCRIPT = [
    Message("model", "First I look at the weather in Lisbon.", "weather", "Lisbon"),
    Message("model", "It rains on Saturday: let me see what is open.", "museums", "Lisbon"),
    Message("model", "See the tiles on Saturday, and go to the beach on Sunday."),
]
TOOLS = {"weather": "rain on Saturday, sun on Sunday", "museums": "the museum of tiles"}
words = Topic("words", str)


@workflow
async def agent(question: str) -> str:
    """Answer a question."""
    talk = [Message("user", question)]
    while True:
        answer = await ask_model(talk)
        talk.append(answer)
        if answer.tool is None:
            return answer.text
        talk.append(Message("tool", await use_tool(answer.tool, answer.argument)))


@step(retry=Retry(max_attempts=3))
async def ask_model(talk: list[Message]) -> Message:
    """Let the model answer, and pass its words on as they come."""
    answer = SCRIPT[sum(message.role == "model" for message in talk)]
    print(f"model is asked: {talk[-1].text}", flush=True)
    for word in answer.text.split():
        await asyncio.sleep(0.1)
        await perdure.write_stream(words, word)
    return answer


@step
async def use_tool(name: str, argument: str) -> str:
    """Use a tool; here each has one answer."""
    print(f"tool is used: {name} in {argument}", flush=True)
    return TOOLS[name]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Let the web server be the worker, too."""
    async with Perdure(lease=2, grace=0):
        yield


api = FastAPI(lifespan=lifespan)


@api.put("/agents/{id}")
async def begin(id: str, question: str) -> None:
    """Start an agent, if it is not there already."""
    await agent.options(id=id).start(question)


@api.get("/agents/{id}/words")
async def read_along(id: str, last_event_id: Annotated[int, Header()] = -1) -> StreamingResponse:
    """Everything that the model says, after the event that was seen last."""
    return StreamingResponse(events(id, last_event_id + 1), media_type="text/event-stream")


async def events(id: str, offset: int) -> AsyncIterator[str]:
    """A stream as server-sent events."""
    async for item in agent.handle(id).stream(words, offset=offset):
        match item:
            case Item(offset=place, value=word):
                yield f"id: {place}\ndata: {word}\n\n"
            case Discarded(from_offset=place):
                yield f"event: discarded\ndata: {place}\n\n"


async def listen(client: httpx.AsyncClient, seen: dict[int, str], up_to: int | None = None) -> None:
    """Do what a browser does: read events, remember the id of the last one."""
    last = {"Last-Event-ID": str(max(seen))} if seen else {}
    async with client.stream("GET", "/agents/trip/words", headers=last) as response:
        event: dict[str, str] = {}
        async for line in response.aiter_lines():
            if line:
                field, _, event[field] = line.partition(": ")
                continue
            if "id" in event:
                seen[int(event["id"])] = event["data"]
            else:  # words that do not count, from this one on
                for place in range(int(event["data"]), max(seen, default=-1) + 1):
                    seen.pop(place, None)
            event.clear()
            if len(seen) == up_to:
                return


async def main() -> None:
    """Serve, and be the browser: one that loses its connection after five words."""
    server = uvicorn.Server(uvicorn.Config(api, log_level="warning"))
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        await client.put("/agents/trip", params={"question": "What can I do in Lisbon?"})
        seen: dict[int, str] = {}
        await listen(client, seen, up_to=5)
        print(f"browser: {' '.join(seen.values())} ... (connection lost after event {max(seen)})", flush=True)
        await listen(client, seen)
    answer = await agent.handle("trip").result()
    server.should_exit = True
    await serving
    text = " ".join(seen.values())
    print(f"browser: {text}")
    assert text.endswith(answer)


if __name__ == "__main__":
    asyncio.run(main())
