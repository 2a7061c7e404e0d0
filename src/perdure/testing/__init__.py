"""What tests of workflows need: a clock of their own."""

from perdure.testing.clock import Clock

__all__ = ["Clock"]
