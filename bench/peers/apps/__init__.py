"""The workload for each engine: one module each, run with the Python of that engine's environment.

    python -m bench.peers.apps.NAME worker|drive ADDRESS

These modules import `bench.peers.workload`, the standard library and the engine's own packages, and nothing else of the
project (`moonmesh` is the exception: it is the project).
"""
