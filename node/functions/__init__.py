"""The function host: calls that arrive, and the threads that run them."""
