"""Ledgers for people: terminal tables, Markdown, charts and pages. Imports no model."""
