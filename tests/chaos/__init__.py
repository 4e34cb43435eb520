"""Chaos: nodes and servers that are killed, stopped, cut off and slowed under load, and a check of what came of it."""
