"""How an operator sees a node: metrics and health over HTTP, traces, and its log lines while they are written."""
