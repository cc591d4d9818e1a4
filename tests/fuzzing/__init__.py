"""Mutated files for every reader of the study: none may crash it, hang it or fill memory."""
