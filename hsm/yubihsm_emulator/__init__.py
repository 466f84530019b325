"""A YubiHSM 2 (firmware 2.4) in software, for testing what talks to one. It protects nothing."""
