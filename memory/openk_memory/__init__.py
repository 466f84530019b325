"""Locked memory, wiping and process hardening: the lowest package of openk; it imports nothing of ours."""
