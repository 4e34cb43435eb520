"""Fuzzing: generated workflow programs that must replay the same elsewhere, and hostile bytes for every decoder."""
