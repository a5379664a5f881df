"""A simulated town: households with a ground truth, meters that answer from it, lines that fail on purpose.

Nothing here imports the head-end: what both ends misread alike, no test could see.
"""
