"""Generated Python for the messages of the travel booking; the `.proto` file beside it is the source."""
