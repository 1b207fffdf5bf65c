"""The rules of a saga, pure: no clock, no chance, no I/O, nothing but the standard library.

Input ─► decide(plan, state, input, now) ─► facts
Event ─► apply(plan, state, event)          the only place where a state changes
state ─► pending(plan, state)               what the shell owes the world, now and after a crash
"""
