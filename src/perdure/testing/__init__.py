"""What tests of workflows need: a clock of their own, and histories that stay green."""

from perdure.testing.clock import Clock
from perdure.testing.histories import replay

__all__ = ["Clock", "replay"]
