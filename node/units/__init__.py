"""Live units, which are processes and function calls, and their ways to each other and to other nodes."""
