"""Arrays in, Figure out.

Everything that draws belongs here. What computes, reads or chooses does not. It may import the
ground and the scores that it draws, nothing above networks.
"""
