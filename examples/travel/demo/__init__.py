"""The agency at work: six trips, one manager, and books that add up.

python -m examples.travel
"""
