"""Interaction logs: reading, checking, filtering, splitting, candidate sets."""
