"""Figures and pages of evaluated predictions."""
