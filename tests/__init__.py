"""The tests: decisions and properties first, then everything against a real nats-server."""
