"""The failure model: what may go wrong in one simulated world, and how often. Everything in it follows from these options alone."""

from dataclasses import asdict, dataclass, replace

from tests.simulation.chance import Chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One world. Shares are from 0 to 1; times are virtual seconds."""

    seed: int
    sagas: int = 100
    """Started while things go wrong."""
    only: tuple[int, ...] = ()
    """The numbers of the sagas that are started; empty: all."""
    definitions: int = 6
    """Random plans that the sagas follow."""
    nodes: int = 1
    """Coordinators; more than one share a database."""
    storm_s: float = 60.0
    """How long things go wrong. Then everything is started again, and whatever is left must end."""

    lost_requests: float = 0.04
    """Share of calls to participants that never arrive."""
    lost_replies: float = 0.06
    """Share of calls to participants that are carried out, and nobody hears of it."""
    silent_losses: float = 0.5
    """Share of losses that only the deadline tells, in place of a broken connection."""
    repeated_requests: float = 0.05
    """Share of calls that arrive twice; of those that are lost at first ten times as many arrive after all."""
    repeated_after_s: float = 20.0
    """How late at most: when the attempt is over, and the saga may have turned back."""
    delayed_s: float = 2.0
    """Longest delay of a request or a reply, so that calls overtake each other."""
    delayed: float = 0.15
    """Share of requests and of replies that are delayed."""
    unheard_cancellations: float = 0.3
    """Share of calls whose participant does not notice that nobody waits any more."""
    lost_client_calls: float = 0.03
    """Share of calls of clients that are lost, on the way there or on the way back."""
    repeated_starts: float = 0.2
    """Share of sagas that are started a second time, under another id, by somebody who knows nothing but their key."""
    partitions: int = 3
    """How often a way between two processes is cut for a while."""

    coordinator_crashes: int = 4
    """At random instants."""
    suspensions: int = 3
    """How often a coordinator is stopped, and goes on later as if nothing had been."""
    cut_offs: int = 2
    """How often nothing gets through between a coordinator and its database for a while."""
    absence_s: float = 12.0
    """Longest time for which a coordinator is stopped or cut off: beyond its lease."""
    delayed_starts: float = 0.15
    """Share of sagas that begin later than they are started, by up to five minutes."""
    commit_crashes: float = 0.01
    """Share of commits at which the coordinator dies: before, after, or when what they justify was released."""
    participant_crashes: int = 4
    """At random instants; the memory is lost, the database is kept."""
    framed: float = 1.0
    """Share of the lives of participants' processes in which they serve Exchange; in the others they are called one by one."""
    drains: int = 6
    """How often a participant asks for no more calls on the streams that it has."""
    outage_s: float = 3.0
    """Longest time for which a process stays away."""
    slow_commits: float = 0.1
    """Share of commits that take up to a second, half of it with an outcome in doubt."""
    failing_commits: float = 0.01
    """Share of commits before which the database is away for up to `outage_s`."""
    clock_error_s: float = 3_600.0
    """How far the clock of a process is wrong at most, from each start to the next."""
    clock_drift: float = 0.01
    """How much too fast or too slow it goes at most."""

    rejections: float = 0.12
    """Share of steps that their participant refuses."""
    transient_failures: float = 0.08
    """Share of calls whose handler fails before its effect."""
    postponements: float = 0.04
    """Share of calls that are answered "later"."""
    slow_handlers: float = 0.04
    """Share of calls whose handler takes longer than its attempt may."""
    verbs: float = 0.4
    """Share of sagas that a person meddles with."""

    def without(self, name: str) -> "Options":
        """The same world in which this does not go wrong."""
        return replace(self, **{name: type(getattr(self, name))(0)})

    def describe(self) -> str:
        """What to write down to see it again."""
        defaults = drawn(self.seed)
        own, usual = asdict(self), asdict(defaults)
        said = {name: value for name, value in own.items() if value != usual[name]}
        return " ".join([f"seed={self.seed}", *(f"{name}={value}" for name, value in said.items())])


INTENSITIES = (0.0, 0.5, 1.0, 1.0, 2.0, 6.0)
SHARE_MAX = 0.4
SHARES = (
    "lost_requests", "lost_replies", "repeated_requests", "delayed", "unheard_cancellations", "commit_crashes", "slow_commits",
    "rejections", "transient_failures", "postponements", "slow_handlers",
)  # fmt: skip
"""What differs from world to world."""
FAULTS = (
    "lost_requests", "lost_replies", "repeated_requests", "delayed", "unheard_cancellations", "lost_client_calls", "repeated_starts",
    "partitions", "coordinator_crashes", "suspensions", "cut_offs", "delayed_starts",
    "commit_crashes", "participant_crashes", "drains", "framed", "slow_commits", "failing_commits",
    "clock_error_s", "clock_drift", "rejections", "transient_failures", "postponements", "slow_handlers", "verbs",
)  # fmt: skip
"""What may be left out to make a failing world smaller."""


def drawn(seed: int) -> Options:
    """The failure model of that seed: in one world more is lost, in another more dies."""
    defaults, chance = Options(seed=seed), Chance(seed).stream("options")
    shares = {name: getattr(defaults, name) * chance.choice(INTENSITIES) for name in SHARES}
    nodes = chance.choice((1, 1, 2, 3))
    framed = chance.choice((0.0, 0.0, 0.5, 1.0))
    return replace(defaults, nodes=nodes, framed=framed, **{name: min(share, SHARE_MAX) for name, share in shares.items()})
