"""Rewrites of a captured network, one a file; each returns the new network and what replaced what."""
