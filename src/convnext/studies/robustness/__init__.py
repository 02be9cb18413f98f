"""Errors of a classifier under corruptions and attacks, and on other test sets."""
