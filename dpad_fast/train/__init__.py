"""Training: the small models of the shapes world, the configuration, and TRL's trainer with our rewards."""
