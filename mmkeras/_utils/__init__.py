"""Small private helpers."""
