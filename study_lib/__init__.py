"""Dose and overlap study of ptychography: a thin typed library behind parameterised notebooks.

Import what you need from where it lives, for example
``from study_lib.physics.forward import exit_waves``.
"""

__version__ = "0.1.0"
