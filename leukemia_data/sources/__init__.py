"""Folders and tables of images: their classes and subjects; generated cells."""
