"""`python -m coordinator`: the same as the command `saga`."""

from coordinator.cli import main

if __name__ == "__main__":
    main()
