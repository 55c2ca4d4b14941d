"""Example logs, simulated: drawn from known probabilities by ``make``; no model was run."""
