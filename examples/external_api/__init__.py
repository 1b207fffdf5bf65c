"""A participant whose effect is outside of its database: it takes money by the HTTP API of somebody else."""
