"""Generated Python for the wire contract; the `.proto` files beside it are the source."""
