"""Guards that let each key take effect at most once."""
