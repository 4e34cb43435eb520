"""What one node runs: registry, Lua machine, workflow engine, function host, command line."""
