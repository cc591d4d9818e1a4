"""How near an object is to the truth, and to what the photons allow.

Alignment, every score, the photon limit and the table over replicates belong here, as numbers and
text. Files, designs and figures do not.
"""
