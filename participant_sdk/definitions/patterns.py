r"""How large a regular expression becomes when it is compiled.

The library compiles the pattern of `matches` again each time it is evaluated. Most take 10 µs, but `\pL{100}` takes 125 ms. So a pattern
is weighed before: roughly the instructions of the program that it becomes.
"""

import re
from typing import Final

WEIGHT_MAX: Final = 2_000
"""Of a pattern; 1.6 ms to compile at the most, and 0.6 µs per byte that is searched. `^[a-z]{2}-[0-9]{6}$` weighs 10."""
_ANY_WEIGHT: Final = 10
"""Of what stands for nearly all characters of Unicode: `.`, and classes that say what is not in them."""
_UNICODE_WEIGHT: Final = 1_500
r"""Of a class of Unicode, like `\pL`: they have hundreds of ranges."""
_TOKEN: Final = re.compile(
    r"(?P<quote>\\[QE])|(?P<unicode>\\[pP](?:\{[^}]*\}|.)?)|(?P<hex>\\x\{[^}]*\})|(?P<not>\\[DSW])|(?P<escape>\\.)"
    r"|(?P<open>\()|(?P<close>\))|(?P<count>\{(?P<least>\d+)(?:,(?P<most>\d*))?\})|(?P<any>\.)"
    r"|(?P<set>\[\^?\]?(?:\[:[^\]]*:\]|\\.|[^\]\\])*\])|(?P<other>.)",
    re.DOTALL,
)


def weight_of(pattern: str) -> float:
    r"""How heavy a pattern is; infinite for `\Q…\E`, which is not read."""
    levels: list[list[float]] = [[]]
    folds = "(?" in pattern and re.search(r"\(\?[a-zA-Z]*i", pattern) is not None
    for match in _TOKEN.finditer(pattern):
        kind, last = match.lastgroup, levels[-1]
        match kind:
            case "quote":
                return float("inf")
            case "open":
                levels.append([])
            case "close" if len(levels) > 1:
                closed = levels.pop()
                levels[-1].append(1 + sum(closed))
            case "count" | "least" | "most":
                times = int(match["most"] or match["least"]) if len(match[0]) < 9 else 2 * WEIGHT_MAX
                if last:
                    last[-1] *= max(1, times)
            case _:
                last.append(_weight_of_token(str(kind), match[0], folds=folds))
    return sum(sum(level) for level in levels)


def _weight_of_token(kind: str, token: str, *, folds: bool) -> float:
    if kind == "unicode" or "\\p" in token or "\\P" in token:
        return _UNICODE_WEIGHT
    if kind in {"set", "hex", "other"} and (not token.isascii() or "\\x{" in token):
        return _UNICODE_WEIGHT if folds and kind == "set" else _ANY_WEIGHT
    if kind in {"any", "not"} or token.startswith("[^") or "[:^" in token or (kind == "set" and re.search(r"\\[DSW]", token)):
        return _UNICODE_WEIGHT if folds and kind == "set" else _ANY_WEIGHT
    return 1
