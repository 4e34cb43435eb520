"""How fast the mesh is, measured on the machine at hand: `python -m bench` (see `bench.__main__`).

Not a test: it asserts that what was measured was right (every workflow completed, with the right number of steps), and
leaves it to the reader whether that was quick. Nodes run as they run for users, each in an OS process of its own.
"""
