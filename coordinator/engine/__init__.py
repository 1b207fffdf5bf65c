"""The asynchronous shell around the core: one loop that decides, journals, and only then acts. Ports belong here, adapters do not."""
