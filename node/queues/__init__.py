"""Message queues (contract 14.7): what keeps messages, and what hands them to functions.

Not to be taken for the queues of workflows, which are `node.workflows.engine`'s.
"""
