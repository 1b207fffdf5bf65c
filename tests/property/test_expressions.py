"""Laws of expressions: whatever is written is refused with mistakes or compiles, and what compiles fails in one way only."""

import re

from hypothesis import given
from hypothesis import strategies as st

from participant_sdk.definitions.expressions import BOOL, EvaluationError, Expressions, MistakesError, Program
from participant_sdk.definitions.mistakes import MISTAKES_MAX
from participant_sdk.definitions.patterns import weight_of
from tests.unit.definitions.plain_expressions import scope
from tests.unit.definitions.travel_messages import travel_types

EXPRESSIONS = Expressions(travel_types())

WORDS = """
    input hotel ran.hotel strict . , ( ) [ ] { } ? : + - * / % == != < > && || ! in name legs cents prices first extra any_value packed
    title limit begin stay class Class.FIRST Trip Leg Booked old.v1.Strict map( filter( all( exists( has( size( int( string( double(
    timestamp( duration( matches( contains( x y 1 2u 1.5 'a' b'b' true null // \\ " ' ` é 😀 @
"""
LEAVES = """
    input hotel ran.hotel strict x input.legs input.name input.cents input.prices input.extra input.any_value input.packed input.limit
    input.title input.begin input.tags 1 2u 0 1.5 'a' b'b' true null [] {}
"""
KNOWN_LEAVES = """
    input hotel ran.hotel input.legs input.name input.cents input.prices input.begin input.tags input.by_day input.class input.rooms
    input.rate 1 2u 0 1.5 'a' b'b' true null [] {}
"""
RAW = re.compile(r"ERROR|\*error\*|comprehension|undeclared|overload|IDENTIFIER|_[?+<>=&|]|%\d|null_type|wrapper\(|\(error")
"""Words of the library, and marks that stand for what it has not found out."""
words = st.sampled_from([*WORDS.split(), " ", "\n", "\0"])


def _grown(smaller: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Values of any type out of values of any type: most do not fit, enough do."""
    pair = st.tuples(smaller, smaller)
    return st.one_of(
        st.builds("({0[0]} {1} {0[1]})".format, pair, st.sampled_from(["+", "-", "*", "/", "%", "==", "<", "&&", "||", "in"])),
        st.builds("({0[0]} ? {0[1]} : {1})".format, pair, smaller),
        st.builds("{0}.{1}".format, smaller, st.sampled_from(["name", "legs", "cents", "first", "to", "code", "extra", "inner", "packed"])),
        st.builds("{0}.{1}(x, {2})".format, smaller, st.sampled_from(["map", "filter", "all", "exists", "exists_one"]), smaller),
        st.builds(
            "{1}({0})".format, smaller, st.sampled_from(["int", "uint", "double", "string", "bytes", "size", "dyn", "timestamp", "has"])
        ),
        st.builds("{0[0]}[{0[1]}]".format, pair),
        st.builds("[{0[0]}, {0[1]}]".format, pair),
        st.builds("{{{0[0]}: {0[1]}}}".format, pair),
        st.builds(
            "Trip{{{1}: {0}}}".format, smaller, st.sampled_from(["name", "cents", "legs", "first", "prices", "class", "extra", "packed"])
        ),
        st.builds("old.v1.Strict{{count: {0}}}".format, smaller),
    )


def _grown_of_known_types(smaller: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """As `_grown`, without what is known only when it is evaluated: Struct, Value, Any, wrappers, and dyn()."""
    pair = st.tuples(smaller, smaller)
    fields = ["name", "cents", "legs", "first", "prices", "class", "tags", "codes", "by_day", "extra", "any_value", "list"]
    macros, inside = ["map", "filter", "all", "exists", "exists_one"], smaller | st.sampled_from(["x", "x == x", "[x]"])
    return st.one_of(
        st.builds("({0[0]} {1} {0[1]})".format, pair, st.sampled_from(["+", "-", "*", "/", "%", "==", "<", "&&", "||", "in"])),
        st.builds("({0[0]} ? {0[1]} : {1})".format, pair, smaller),
        st.builds("{0}.{1}".format, smaller, st.sampled_from(["name", "legs", "cents", "first", "to", "code", "inner"])),
        st.builds("{0}.{1}(x, {2})".format, smaller, st.sampled_from(macros), inside),
        st.builds("{1}({0})".format, smaller, st.sampled_from(["int", "uint", "double", "string", "bytes", "size", "timestamp"])),
        st.builds("{0[0]}[{0[1]}]".format, pair),
        st.builds("[{0[0]}, {0[1]}]".format, pair),
        st.builds("{{{0[0]}: {0[1]}, {1[0]}: {1[1]}}}".format, pair, pair),
        st.builds("Trip{{{1}: {0}}}".format, smaller, st.sampled_from(fields)),
    )


leaves = st.sampled_from(LEAVES.split())
leaves_of_known_types = st.sampled_from(KNOWN_LEAVES.split())
grown_of_known_types = st.recursive(leaves_of_known_types, _grown_of_known_types, max_leaves=8)
grown = st.recursive(leaves, _grown, max_leaves=8)
serialised = st.binary(max_size=40) | st.sampled_from([b"", b"\x0a\x01a\x52\x00", b"\x18\x05\x52\x05\x12\x01b\x18\x07"])


def compiled(text: str) -> Program | MistakesError:
    try:
        return EXPRESSIONS.compile(text, scope=scope(), wanted=None)
    except MistakesError as error:
        return error


def evaluated(program: Program, values: dict[str, bytes | bool]) -> bytes | bool | EvaluationError:
    try:
        return program.decide(values) if program.result == BOOL else program.evaluate(values)
    except EvaluationError as error:
        return error


def mistakes_of(text: str) -> list[str]:
    found = compiled(text)
    return found.mistakes if isinstance(found, MistakesError) else []


def check_compilation(text: str) -> Program | None:
    found = compiled(text)
    if isinstance(found, Program):
        return found
    assert 1 <= len(found.mistakes) <= MISTAKES_MAX
    assert all(found.mistakes)
    return None


@given(grown_of_known_types, serialised)
def test_what_reads_only_known_types_never_fails_by_a_type(text: str, trip: bytes) -> None:
    found = compiled(f"size([{text}]) == 1")
    if isinstance(found, Program):
        failure = evaluated(found, {"input": trip, "hotel": b"", "ran.hotel": True, "strict": b""})
        assert not re.search(r"conversion error from|overload|non-message|found null", str(failure))


@given(st.text(max_size=60))
def test_any_text_compiles_or_has_mistakes(text: str) -> None:
    check_compilation(text)


@given(st.lists(words, max_size=12).map("".join))
def test_any_words_of_the_language_compile_or_have_mistakes(text: str) -> None:
    check_compilation(text)


@given(grown, serialised, serialised, serialised)
def test_what_compiles_returns_or_fails_in_one_way(text: str, trip: bytes, booked: bytes, strict: bytes) -> None:
    program = check_compilation(text)
    if program is None:
        assert [mistake for mistake in mistakes_of(text) if RAW.search(mistake)] == []
        return
    found = evaluated(program, {"input": trip, "hotel": booked, "ran.hotel": True, "strict": strict})
    if isinstance(found, EvaluationError):
        assert str(found).startswith("expression ")
    elif program.result != BOOL:
        assert isinstance(found, bytes)
        assert travel_types().get(program.result).FromString(found).SerializeToString(deterministic=True) == found


@given(st.text(max_size=60) | st.text("(){}[]0123456789,\\pPLxQE|.^$*+?iabc-:", max_size=40))
def test_every_pattern_has_a_weight(pattern: str) -> None:
    assert weight_of(pattern) >= 0
