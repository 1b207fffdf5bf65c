"""The saga coordinator: drives sagas by calling participants, and keeps every fact in SQL before acting on it."""
