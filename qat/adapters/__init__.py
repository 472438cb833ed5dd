"""The callback in training loops of other libraries: `lightning.QATLightning`, `hf.QATTrainerCallback`.

Each is imported from its own module, since it needs its own library.
"""
