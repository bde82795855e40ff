"""Image files to RGB uint8 pixels."""
