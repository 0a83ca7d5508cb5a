"""Trackers run over recordings, and what comes of it."""
