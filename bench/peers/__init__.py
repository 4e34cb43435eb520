"""Other durable engines with the same work on the same machine.

`workload` says what is measured, once for all; `apps` holds the same three workflows for each engine, written as its
documentation shows; `setups` says how each is installed and started; `measuring` does it. An engine lives in an
environment of its own in a cache directory, never in the project's.
"""
