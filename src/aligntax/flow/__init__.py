"""The verbs: read, compare."""
