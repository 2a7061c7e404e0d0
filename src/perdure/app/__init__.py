"""The app: a database, an engine and the user's settings put together, in two colours."""

from perdure.app.apps import BlockingPerdure, Perdure
from perdure.app.blocking_runs import BlockingRuns
from perdure.app.runs import Runs

__all__ = ["BlockingPerdure", "BlockingRuns", "Perdure", "Runs"]
