"""Training of the two stages, the autoencoder and the dynamics."""
