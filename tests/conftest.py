"""The Hypothesis profile of this project's own tests: no deadlines, and few examples, each a whole attention."""

import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "equivcheck", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("equivcheck")

torch.set_num_threads(1)  # the tensors are small: more threads only wait for each other
