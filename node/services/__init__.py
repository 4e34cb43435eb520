"""Supervised processes: when they start and stop, in which order, and on which node."""
