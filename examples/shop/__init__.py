"""A shop of three services and the saga that places an order across them."""
