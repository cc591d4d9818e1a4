"""Files of other programs: one module a format, each to and from an acquisition.

What a format alone knows belongs in its module, what all share in acquisition and cleaning. The
rules of DATA-001 do not belong here.
"""
