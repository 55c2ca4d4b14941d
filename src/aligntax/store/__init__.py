"""Logs in, run directories out. The only layer that touches files."""
