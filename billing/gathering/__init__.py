"""What bills are computed from, out of the store: `determinants` puts together what the other modules read."""
