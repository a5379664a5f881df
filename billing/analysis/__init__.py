"""Analysis for staff: whose use fluctuates, what districts lose, and who may use energy that no meter counts.

`gather` reads the store; the other modules are pure functions of what it gives. Energies stay exact decimals; floats
are statistics only (slopes, t values, weights) and never reach a bill.
"""
