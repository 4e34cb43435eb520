"""What the Python functions stand for: a bank and a shelf. Ordinary code that imports nothing of the mesh."""
