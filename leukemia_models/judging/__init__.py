"""Judging numbers: metrics, subjects, intervals, calibration. No torch."""
