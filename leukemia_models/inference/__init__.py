"""Running a network: normalisation, precision, views, ranks, predictions."""
