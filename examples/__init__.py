"""Examples, each a directory that a node can be pointed at."""
