"""The pytest plugin of the test kit.

A package of its own, which imports nothing of the SDK before a test asks for it: pytest loads plugins before coverage is measured.
"""
