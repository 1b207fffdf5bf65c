"""A travel agency of six services, and the saga that books a trip across them."""
