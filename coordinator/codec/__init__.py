"""Between the core's values and the messages of `saga.v1`: pure functions, used by every adapter so that there is one mapping of each."""
