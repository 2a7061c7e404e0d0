"""Job queues whose jobs are rows of a table and have no steps: what is measured of each, but for its own calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from benchmarks.contestants.shared import cold_queue, each_group
from benchmarks.protocol import Job, Worker, drain, import_time, rate, start_latency


class TableQueue(ABC):
    """One that enqueues, and a connection that looks what has become of it.

    Args:
        job: what is to be measured.
        connection: of psycopg, in autocommit.

    Attributes:
        module, package: of the contestant, and what it imports.
        expected, enqueued: jobs a second that a worker runs and that are enqueued in bulk, to choose how many.
        starter: role of the worker that is given single jobs.
        left_query, done_query, clear_query: how many jobs are not done, how many have ended well; forget all.
        analyzed: whether the tables are analyzed before a backlog is drained.
    """

    module: ClassVar[str]
    package: ClassVar[str]
    expected: ClassVar[int]
    enqueued: ClassVar[int]
    starter: ClassVar[str] = "worker"
    left_query: ClassVar[str]
    done_query: ClassVar[str]
    clear_query: ClassVar[str]
    analyzed: ClassVar[bool] = True

    def __init__(self, job: Job, connection: Any) -> None:
        self.job, self.connection = job, connection

    @abstractmethod
    def enqueue_one(self) -> None:
        """Measure one caller, each job durable before the next."""

    @abstractmethod
    def enqueue_stamped(self) -> None:
        """Give one job that says when it began."""

    @abstractmethod
    def fill(self, count: int, at_once: int = 1000) -> None:
        """Give so many bare jobs, some at a time."""

    def measure(self) -> None:
        """Measure what is wanted, each group with an empty queue."""
        each_group(self.job, [("queue", self.queue), ("start", self.start), ("cold", self.cold)])

    def queue(self) -> None:
        """Enqueue with one caller, and 100 a call; drain by one and by two workers."""
        self.clear()
        self.enqueue_one()
        self.clear()
        bulk = int(self.enqueued * self.job.seconds) // 100 * 100
        rate("enqueue-bulk", bulk, lambda: self.fill(bulk, at_once=100))
        if self.left() != bulk:
            raise RuntimeError(f"{self.left()} of {bulk} jobs are in the queue")
        count = max(1000, int(self.expected * self.job.seconds * 2))
        for workers in (1, 2):
            self.clear()
            self.fill(count)
            if self.analyzed:  # so that the planner's figures are up to date
                self.connection.execute("vacuum analyze")
            drain(self.job, f"bare-{workers}", self.module, workers, count, self.left)
            if (done := self.count(self.done_query)) != count:
                raise RuntimeError(f"{count} jobs were enqueued, {done} ended well")

    def start(self) -> None:
        """Give single jobs to an idle worker process."""
        self.clear()
        worker = Worker(self.module, self.job, self.starter)
        try:
            worker.wait_ready()
            start_latency(self.job, "start", worker, self.enqueue_stamped)
            worker.stop()
        finally:
            worker.kill()

    def cold(self) -> None:
        """Importing it, and a process that enqueues a job and runs it."""
        self.clear()
        import_time(f"import {self.package}")
        cold_queue(self.job, self.module, self.left)

    def left(self) -> int:
        """How many are not done."""
        return self.count(self.left_query)

    def count(self, query: str) -> int:
        """The number that a query gives."""
        return int(self.connection.execute(query).fetchone()[0])

    def clear(self) -> None:
        """Forget all jobs."""
        self.connection.execute(self.clear_query)
