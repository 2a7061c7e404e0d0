"""The version of this package, in a file of its own.

The build reads it without importing the package, so nothing else may stand here.
"""

__version__ = "0.1.0"
