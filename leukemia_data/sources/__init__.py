"""Folders and tables of images: which there are, and whose; generated cells."""
