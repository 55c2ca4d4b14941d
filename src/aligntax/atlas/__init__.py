"""Atlas: many models rate how similar two texts are in meaning, and how far their ratings lie apart."""
