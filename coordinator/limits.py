"""How much of a participant's strength one coordinator may use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantLimits:
    """What holds for the calls to one participant. Each coordinator counts its own calls: with several of them the participant gets as
    many times as much.
    """

    concurrency: int = 64
    """Calls under way at once, from 1. Raise it for a slow participant that copes with more."""

    rate_per_second: float = 0.0
    """Calls per second that are sent, repetitions included; 0: no limit. A tenth of a second's worth may go at once."""

    circuit_failures: int = 5
    """Calls in a row that find the participant away or overwhelmed before it is left alone; 0: it never is."""

    circuit_open_s: float = 1.0
    """Seconds that it is left alone at first; twice as long after each try that fails."""

    circuit_open_s_max: float = 30.0
    """Seconds that it is left alone at most; never less than `circuit_open_s`."""
