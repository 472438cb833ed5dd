"""Training loops as projects' own documentation shows them, each as it is (`original.py`) and with QAT (`changed.py`).

Nothing may be downloaded, so all train on scikit-learn's digits or on random numbers. Each is `FILE FOLDER EPOCHS`,
goes on from the checkpoint that it finds in the folder, and (changed) leaves `model.onnx` there.
"""
