"""Predictions and what they are worth: views, metrics, subjects, intervals, calibration."""
