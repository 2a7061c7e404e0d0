"""The only door to the database: connections, the schema, the journal, and one function a statement.

Everything above speaks of runs, steps and waits; only this package knows that they are rows.
"""
