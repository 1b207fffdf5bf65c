"""What a participant can get wrong."""

from enum import StrEnum


class Careless(StrEnum):
    """What it gets wrong."""

    IN_NOTHING = "in nothing"
    NO_BARRIER = "no barrier"
    RACES = "looks first and acts later"
    REFUSES_NULL_COMPENSATION = "refuses to undo what it does not know"
    FORGETS_COMPENSATION = "executes what is undone"
    REFUSES_SECOND_UNDO = "refuses to undo twice"
    UNDOES_NOTHING = "undoes nothing"
    OUTLIVES_DEADLINE = "works on beyond the deadline"
    HANGS_AFTER_DEADLINE = "keeps a lock when a call is cut short"
    FAILS_ON_GARBAGE = "fails on garbage"
    TAKES_OTHER_TYPES = "takes any type"
    TAKES_ANY_ACTION = "takes any action"
    CHOKES = "hangs on large inputs"
    FORGETS_AT_RESTART = "forgets at its restart"
    LIES = "describes another output"
    HIDES_TYPES = "describes itself without its types"
    FORGETS_A_REPLY = "leaves a call of a large frame without a reply"
    SERVES_AN_ID_TWICE = "serves two calls with one id"
    HANGS_UP = "ends the stream when a call is forsaken"
    CUTS_AT_THE_END = "cuts calls short when no more come"
    DRAINS_IN_HASTE = "says that it drains, and goes"
    ONE_BIG_FRAME = "sends everything at once"
    FORGETS_THE_TIME = "does not look at the time of a call in a frame"
    CHOKES_ON_TRACES = "fails on a trace context that it does not know"
