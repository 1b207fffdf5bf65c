"""Generated Python for the messages of the shop; the `.proto` file beside it is the source."""
