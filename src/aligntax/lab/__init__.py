"""The lab: a family of small language models in a world that we wrote, so that what is in their data is known exactly."""
