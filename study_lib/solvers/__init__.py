"""From counts to an object by iterations and denoising.

The project's own solver, pty-chi and the denoisers belong here; they take arrays, a Measurement
and plain values, and only algorithms knows a design. Networks and files do not belong here.
"""
