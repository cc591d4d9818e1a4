"""Many notebooks: the plan, its execution, its evidence and the report.

What knows a run's folder as a whole belongs here, and the cluster that may carry it out. What one
notebook computes does not.
"""
