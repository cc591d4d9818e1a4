"""Dose and overlap study of ptychography: a thin typed library behind parameterised notebooks.

``import study_lib as study`` gives the names that a notebook needs; each is loaded when it is first
used. Everything else is imported from where it lives, ``from study_lib.scores.metrics import
ssim``; docs/code.md says where that is.

runs: ``open_run``, ``open_or_create``, ``create_run``, ``plan_jobs``, ``compare_runs``,
``read_science``;
phases, each of a condition or a run: ``make_reference``, ``generate``, ``choose_view``, ``train``,
``train_thinned``, ``reconstruct``, ``compare``, ``summarize``;
data: ``load_measurement``, ``load_dataset``, ``validate``, ``load_network``, ``load_ensemble``,
``apply_network``;
design: ``load_design``, ``parameters``, ``scene_of``, ``generator``;
physics: ``forward``, ``probe``, ``scan``, ``specimen``, ``split_photons``;
numbers: ``solve``, ``scored_pixels``, ``scores_of``, ``photon_limit``, ``ring_correlation``;
to see: ``figures``, ``Explorer``, ``watch``;
errors: ``StudyError``, ``InputError``.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
