"""Orders: durable workflows over functions in Lua, in Python and in a service of its own. Start with README.md."""
