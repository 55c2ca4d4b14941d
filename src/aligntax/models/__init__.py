"""Models: where they come from and what can be asked of them. Only modules whose first line says so import torch."""
