"""What operators see: log lines, metrics, health, and the words exchanged with the service manager."""
