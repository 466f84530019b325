"""The daemon looks after itself: probes of what it depends on, readings, alerts, and a word when its health changes."""
