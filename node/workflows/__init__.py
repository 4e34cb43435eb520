"""The workflow engine: histories in, decisions of runs, effects out."""
