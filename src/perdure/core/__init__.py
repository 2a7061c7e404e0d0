"""What "durable" means: definitions, the run and its branches, the gate, and the operations of a workflow.

Nothing here knows SQL, a driver or a clock. Operations are generators that yield what they need (a commit
to wait for, a function to call) and two small drivers answer them, one awaiting, one blocking; so every
rule is written once for both colours, and a test can crash an operation at each of its effects.
"""
