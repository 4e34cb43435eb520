"""The durable log: the streams of queues, and what has to be looked at again after a takeover."""
