"""Definition files, as texts."""

SMALLEST = """
name: smallest
version: 1
input_type: shop.v1.PlaceOrder
steps:
  - id: reserve
    action: inventory.reserve
    input_type: shop.v1.PlaceOrder
    output_type: shop.v1.StockReserved
"""

EVERYTHING = """
descriptors: shop.binpb
name: place-order
version: 3
input_type: shop.v1.PlaceOrder
output: book
output_type: shop.v1.CourierBooked
time_limit: 5m
labels: {team: shop, floor: 3, open: yes}
defaults:
  attempt_timeout: 10s
  execute_time_limit: 1m
  compensate_time_limit: 24h
  execute_retry: {max_attempts: 5, initial_backoff: 200ms, multiplier: 1.5, max_backoff: 30s, non_retryable_codes: [UNAVAILABLE, 10]}
  compensate_retry: {max_attempts: 0}
steps:
  - id: reserve
    action: inventory.reserve
    input: input
    kind: COMPENSATABLE
    after: []
    input_type: shop.v1.PlaceOrder
    output_type: shop.v1.StockReserved
  - id: charge
    action: payments.charge
    after: [reserve]
    kind: PIVOT
    input_type: shop.v1.PlaceOrder
    output_type: shop.v1.PaymentCharged
    execute_retry: {max_attempts: 3}
    compensate_retry: {}
    attempt_timeout: 1.5s
    execute_time_limit: 1h30m
    compensate_time_limit: 1d
  - id: thank
    action: mail.thank
    kind: STEP_KIND_BEST_EFFORT
    after: [charge]
    without_compensation: true
    input_type: shop.v1.PlaceOrder
    output_type: shop.v1.StockReserved
  - id: book
    action: shipping.book
    kind: RETRIABLE
    after: [charge]
    when: input.quantity > 0u
    input_type: shop.v1.PlaceOrder
    output_type: shop.v1.CourierBooked
on_success:
  action: mail.thank
  input: book
  input_type: shop.v1.CourierBooked
  output_type: shop.v1.StockReserved
  execute_retry: {max_attempts: 2}
  attempt_timeout: 3s
  time_limit: 1h
on_failure:
  action: mail.sorry
  input_type: shop.v1.PlaceOrder
  output_type: shop.v1.StockReserved
"""
