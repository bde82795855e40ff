"""Predictions and their evaluation: views, metrics, subjects, intervals, calibration."""
