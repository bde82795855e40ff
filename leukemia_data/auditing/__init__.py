"""Audit of data sets, and recovery of the subjects of renumbered files."""
