"""The lint: finds in the code of workflows what a replay would not see again, without running it.

A replay calls a workflow's code anew and answers its durable calls from the record. What the code learns from
elsewhere, a clock, a socket, chance, is not in the record, and a mistake of this kind shows only when a run is
taken up again. So it is looked for beforehand, where it stands.
"""

from perdure.lint.findings import Code, Finding
from perdure.lint.survey import findings_of

__all__ = ["Code", "Finding", "findings_of"]
