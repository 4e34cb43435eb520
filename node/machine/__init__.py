"""The Lua machine: VMs, what the kernel calls in Python, and the code that is compiled into them."""
