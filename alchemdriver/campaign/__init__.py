"""Campaigns: many runs from one plan, computed here or on a cluster by Parsl.

The plan becomes rows in ``campaign.json``; a row becomes an ordinary run folder when it first
starts.  What happened stands in ``journal.jsonl``, one line an event.
"""
