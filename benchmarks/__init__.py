"""Measurements. Each runs real processes over real sockets and checks its results before it prints a figure.

What compares: `suite` runs `arms` in rounds, keeps `results`, and writes `tables` and `plots`, with the `figures` that are to be reached.

Drivers, each a program that prints one line of JSON as `measured_run` says: `ours` (a `system` of coordinator and `participants`, and a
`load`), `recovery`, `core`, and `peers.*`.

What looks at one thing: `micro` (parts by themselves), `barrier`, `memory`, `nodes`, `large`, `cluster`.
"""
