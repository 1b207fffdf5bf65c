"""How the coordinator is seen from outside: spans and log lines made from committed facts. Nothing here can change or stop a saga."""
