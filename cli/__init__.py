"""The commands ``ldata`` and ``ltrain``: options in, one library call, text out."""
