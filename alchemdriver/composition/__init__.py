"""Composition as a variable: relaxation at fixed weights, scans, optimisation, order and disorder.

Import what you need from the modules; nothing is imported here, so that the command line stays
quick.
"""
