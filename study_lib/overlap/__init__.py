"""Which patterns a view keeps, how they are grouped, and how much they overlap.

Positions, the probe's diameter and a view's settings come in; indices and measures go out. Files
of views do not belong here.
"""
