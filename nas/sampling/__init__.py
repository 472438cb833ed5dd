"""Who proposes candidates: Optuna's samplers by name, and around them what only a search of networks knows.

`registry` names them. `known` holds what is known of a candidate before it is trained, `screened` keeps any sampler
from proposing what is refused or was tried, and `informed` proposes by a surrogate of what is not known.
"""
