"""Which rows a relay may take, and how long the others are left alone."""

import pytest

from participant_sdk.outbox.claims import BUSY_US, PARKED_US, DueRow, Head, held_until_us, takeable
from participant_sdk.outbox.table import OutboxStatus, lane_of

NOW_US = 1_000_000_000


def due(position: int, lane: int | None = None, previous: int | None = None, head: int | None = None) -> DueRow:
    return DueRow(position=position, lane=lane, previous=previous, head=head if lane is not None else None)


def positions(*rows: DueRow, limit: int = 100) -> list[int]:
    return [row.position for row in takeable(rows, limit)]


def test_rows_without_a_lane_are_free() -> None:
    assert positions(due(5), due(2), due(9)) == [5, 2, 9]
    assert positions(due(5), due(2), due(9), limit=2) == [5, 2]


def test_lane_is_taken_from_its_head_as_far_as_it_is_due_without_a_gap() -> None:
    first, second, fourth = due(1, 7, None, 1), due(2, 7, 1, 1), due(4, 7, 3, 1)
    assert positions(fourth, second, first) == [1, 2]


def test_lane_whose_head_is_elsewhere_is_left_alone() -> None:
    assert positions(due(2, 7, 1, 1), due(3, 7, 2, 1), due(4)) == [4]


def test_limit_leaves_out_the_end_of_a_lane() -> None:
    assert positions(due(1, 7, None, 1), due(2, 7, 1, 1), due(3, 7, 2, 1), due(4), limit=2) == [1, 2]


@pytest.mark.parametrize(
    ("head", "until_us"),
    [
        (None, NOW_US + BUSY_US),
        (Head(status=OutboxStatus.FAILED, next_attempt_at_us=0, is_leased=False), PARKED_US),
        (Head(status=OutboxStatus.PENDING, next_attempt_at_us=NOW_US + 9 * BUSY_US, is_leased=False), NOW_US + 9 * BUSY_US),
        (Head(status=OutboxStatus.PENDING, next_attempt_at_us=NOW_US + 9 * BUSY_US, is_leased=True), NOW_US + BUSY_US),
        (Head(status=OutboxStatus.PENDING, next_attempt_at_us=NOW_US + 5, is_leased=True), NOW_US + 5),
        (Head(status=OutboxStatus.PENDING, next_attempt_at_us=NOW_US - 5, is_leased=True), NOW_US + 1),
        (Head(status=OutboxStatus.PENDING, next_attempt_at_us=NOW_US - 5, is_leased=False), NOW_US),
    ],
    ids=["locked by another", "failed", "waiting for its next try", "taken", "taken and soon free", "lease over", "due"],
)
def test_held_row_waits_as_long_as_its_head_says(head: Head | None, until_us: int) -> None:
    heads = {1: head} if head is not None else {}
    assert held_until_us(due(2, 7, 1, 1), heads, NOW_US) == until_us


def test_lane_is_of_topic_and_key_together() -> None:
    lanes = {lane_of("orders", "1"), lane_of("orders", "2"), lane_of("customers", "1"), lane_of("orders1", ""), lane_of("order", "s1")}
    assert len(lanes) == 5
    assert lane_of("orders", "") is None
    assert lane_of("orders", "1") == lane_of("orders", "1")
    assert all(lane is None or -(2**63) <= lane < 2**63 for lane in lanes)
