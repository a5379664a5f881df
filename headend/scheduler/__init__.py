"""What is due, what next after an outcome, and who does it: plan and retry are pure, board keeps, worker works."""
