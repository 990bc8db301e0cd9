"""Models behind one narrow interface; see :mod:`alchemdriver.backends.base`."""
