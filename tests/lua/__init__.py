"""The conformance suite: behaviours of the Lua API, one file each. See README.md."""
