"""Benchmarks: openk against the raw HSM, a bare echo and peers, in one run, as ratios (`python -m bench`)."""
