"""What the demos share: the programs that they start, and how a demo runs and ends."""
