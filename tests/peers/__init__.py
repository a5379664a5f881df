"""Programs around other people's DL/T 645, each run by the Python of its own environment (`make peers`)."""
