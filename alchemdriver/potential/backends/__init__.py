"""Models behind one narrow interface; see :mod:`alchemdriver.potential.backends.base`."""
