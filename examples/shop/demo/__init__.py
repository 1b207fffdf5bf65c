"""The shop with its plugs pulled: four orders, two killed processes, and books that add up.

python -m examples.shop.demo
"""
