"""`python -m node` is `mesh`."""

from node.cli import main

if __name__ == "__main__":
    main()
