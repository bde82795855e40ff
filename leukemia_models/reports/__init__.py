"""Figures and pages of judged predictions."""
