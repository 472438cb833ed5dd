"""Where a network's time goes: measured by layer, beside what a model or a predictor says, alone and under load."""
