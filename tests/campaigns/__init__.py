"""Long runs and fuzzers, each a script: `PYTHONPATH=tests python -m campaigns.NAME`."""
